// What a screen reader says: sentences that come together are read out together.

const TOGETHER_MS = 700;

export function createAnnouncer(node) {
  let words = [];
  let timer = null;
  return (sentence) => {
    words.push(sentence);
    timer ??= setTimeout(() => {
      node.textContent = `${words.join(". ")}.`;
      words = [];
      timer = null;
    }, TOGETHER_MS);
  };
}
