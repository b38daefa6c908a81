// Reads an AsyncAPI document from stdin as its users' tools do, and prints what is wrong with it; the module's folder is the argument.
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const { Parser } = createRequire(process.argv[2])('@asyncapi/parser');
const { document, diagnostics } = await new Parser().parse(readFileSync(0, 'utf8'));
// 0 is an error, 1 a warning; the rest are hints.
const faults = diagnostics.filter((diagnostic) => diagnostic.severity <= 1);
for (const fault of faults) console.log(`${fault.path.join('.')}: ${fault.message}`);
if (document) console.log(`${document.allMessages().length} messages`);
process.exit(faults.length === 0 && document ? 0 : 1);
