// The page of scenarios works without any script; this adds buttons that copy its commands.

import { addCopyButtons } from "./copy.js";

addCopyButtons(document);
