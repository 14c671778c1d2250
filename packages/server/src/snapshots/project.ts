import type { Namespace } from '@decant/core';

/** The project that a namespace is, in contracts that have projects. */
export function projectIdOf(namespace: Namespace): string {
  return `proj_${namespace}`;
}

/** Whether an id, as it is or in base32 (RFC 4648, in any case, padded or not), means the namespace. */
export function isProjectOf(projectId: string, namespace: Namespace): boolean {
  const own = new Set<string | undefined>([projectIdOf(namespace), namespace]);
  return own.has(projectId) || own.has(fromBase32(projectId));
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

function fromBase32(text: string): string | undefined {
  const digits = text.toUpperCase().replace(/=+$/, '');
  const bytes: number[] = [];
  let bits = 0;
  let value = 0;
  for (const digit of digits) {
    const number = ALPHABET.indexOf(digit);
    if (number < 0) return undefined;
    value = ((value << 5) | number) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((value >> bits) & 0xff);
    }
  }
  return Buffer.from(bytes).toString('utf8');
}
