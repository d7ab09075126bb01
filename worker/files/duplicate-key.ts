/**
 * Finds a key that appears twice in one object of a JSON text. JSON.parse keeps the last of them
 * without a word; a safetensors header that says two things about one tensor is refused instead.
 */

/** `json` must have parsed. Returns the first duplicate key in text order, or undefined. */
export function duplicateKey(json: string): string | undefined {
  // One entry per open bracket: the keys seen so far, or null inside an array.
  const open: (Set<string> | null)[] = [];
  let expectsKey = false;
  for (let i = 0; i < json.length; i++) {
    switch (json[i]) {
      case '{':
        open.push(new Set());
        expectsKey = true;
        break;
      case '[':
        open.push(null);
        expectsKey = false;
        break;
      case '}':
      case ']':
        open.pop();
        expectsKey = false;
        break;
      case ',':
        expectsKey = open.at(-1) !== null;
        break;
      case '"': {
        const start = i++;
        while (json[i] !== '"') i += json[i] === '\\' ? 2 : 1;
        const keys = open.at(-1);
        if (!expectsKey || !keys) break;
        // Through the parser, so that "a" and "\u0061" are one key.
        const key = JSON.parse(json.slice(start, i + 1)) as string;
        if (keys.has(key)) return key;
        keys.add(key);
        expectsKey = false;
        break;
      }
    }
  }
  return undefined;
}
