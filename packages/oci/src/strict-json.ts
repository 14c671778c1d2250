/** Most levels of objects and arrays; documents of images have about six. */
const MAX_DEPTH = 64;

/**
 * What makes a JSON text ambiguous or unreasonable although it parses: a member that stands twice in one object, which
 * one program reads as its first and another as its last value (RFC 8259, section 4), or too deep nesting. The text
 * must be JSON. Undefined when there is nothing; `offset` counts characters.
 */
export function jsonFault(text: string): { readonly what: string; readonly offset: number } | undefined {
  const open: (Set<string> | undefined)[] = [];
  let expectsKey = false;
  for (let at = 0; at < text.length; at++) {
    switch (text.charCodeAt(at)) {
      case 0x7b: // {
      case 0x5b: // [
        if (open.length >= MAX_DEPTH) return { what: `more than ${MAX_DEPTH} levels`, offset: at };
        expectsKey = text[at] === '{';
        open.push(expectsKey ? new Set() : undefined);
        break;
      case 0x7d: // }
      case 0x5d: // ]
        open.pop();
        expectsKey = false;
        break;
      case 0x2c: // ,
        expectsKey = open.at(-1) !== undefined;
        break;
      case 0x22: {
        const end = endOfString(text, at);
        if (expectsKey) {
          // Two spellings of one name are one name.
          const name = JSON.parse(text.slice(at, end)) as string;
          const names = open.at(-1)!;
          if (names.has(name)) return { what: `the member ${JSON.stringify(name.slice(0, 100))} twice`, offset: at };
          names.add(name);
          expectsKey = false;
        }
        at = end - 1;
        break;
      }
    }
  }
  return undefined;
}

/** The position after the closing quote of the string that begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let at = start + 1; ; at++) {
    const code = text.charCodeAt(at);
    if (code === 0x22) return at + 1;
    if (code === 0x5c) at++;
  }
}
