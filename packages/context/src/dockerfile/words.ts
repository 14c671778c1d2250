/**
 * The first line of an instruction as builders see it: continued lines joined, comments and empty lines among them
 * left out. What follows (the bodies of here-documents) is not part of it.
 */
export function logicalLine(text: string, escape: string): string {
  let joined = '';
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (index > 0 && /^\s*(?:#|$)/.test(line)) continue;
    const trimmed = line.replace(/[ \t]+$/, '');
    if (!trimmed.endsWith(escape)) return joined + line;
    joined += trimmed.slice(0, -1);
  }
  return joined;
}

/** The words between white space, quotes and escapes still in them; white space in quotes or escaped does not part words. */
export function splitWords(line: string, escape: string): string[] {
  const words: string[] = [];
  let word = '';
  let quote = '';
  for (let at = 0; at < line.length; at++) {
    const character = line[at]!;
    if (character === escape && quote !== "'" && at + 1 < line.length) {
      at += 1;
      word += character + line[at]!;
    } else if (quote === '' && /\s/.test(character)) {
      if (word !== '') words.push(word);
      word = '';
    } else {
      if (character === quote) quote = '';
      else if (quote === '' && (character === '"' || character === "'")) quote = character;
      word += character;
    }
  }
  if (word !== '') words.push(word);
  return words;
}
