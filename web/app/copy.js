// Copying to the clipboard, also where browsers give no clipboard to plain-HTTP pages.

/** Puts `text` on the clipboard; answers whether that worked. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** Gives every block of code in `root` a button in its corner that copies it. */
export function addCopyButtons(root) {
  for (const block of root.querySelectorAll("pre > code")) {
    const frame = document.createElement("div");
    frame.className = "code";
    block.parentElement.replaceWith(frame);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      button.textContent = (await copyText(block.textContent)) ? "Copied" : "Press Ctrl+C";
      setTimeout(() => { button.textContent = "Copy"; }, 1_600);
    });
    frame.append(button, block.parentElement);
  }
}
