/** Pieces between hyphens and dots that are shorter are words, numbers or the parts of a UUID. */
const PIECE = 16;
/** Bits in long pieces of one name. Sixteen random base32 characters have about 60, twenty have 80. */
const MOST_BITS = 72;

/** Information in a text by how often each of its characters comes (Shannon), bits. */
export function entropyBits(text: string): number {
  const counts = new Map<string, number>();
  for (const character of text) counts.set(character, (counts.get(character) ?? 0) + 1);
  let bits = 0;
  for (const count of counts.values()) bits -= count * Math.log2(count / text.length);
  return bits;
}

/** The part of a name that stands below the base of a wildcard. */
export function partBelow(name: string, base: string): string {
  return name.endsWith(`.${base}`) ? name.slice(0, -base.length - 1) : name;
}

function longPieces(text: string): readonly string[] {
  return text.split(/[.-]/).filter((piece) => piece.length >= PIECE);
}

function looksRandom(text: string): boolean {
  return longPieces(text).reduce((bits, piece) => bits + entropyBits(piece), 0) > MOST_BITS;
}

/**
 * A name as it is shown and logged when it was denied: a name that looks like data may be data, so its long pieces are cut to four characters.
 */
export function shownHost(name: string): string {
  if (!looksRandom(name)) return name;
  return longPieces(name).reduce((text, piece) => text.replaceAll(piece, `${piece.slice(0, 4)}***`), name);
}

/** Whether a name below a wildcard carries more than a name needs. Many short ones are for the resolver's budget. */
export function isRandomName(name: string, base: string | undefined): boolean {
  return base !== undefined && looksRandom(partBelow(name, base));
}
