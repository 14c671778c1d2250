import { parseAddress, type Address } from './address.ts';

/** A range of addresses: what begins with the first `prefix` bits of `base`. */
export interface Cidr {
  readonly base: Address;
  /** 0 to 32, or 0 to 128. */
  readonly prefix: number;
  readonly text: string;
}

/** Reads `ADDRESS/BITS`, or an address alone as the range of itself. Bits below the prefix must be zero. */
export function parseCidr(text: string): Cidr | undefined {
  const slash = text.indexOf('/');
  const base = parseAddress(slash < 0 ? text : text.slice(0, slash));
  if (base === undefined) return undefined;
  const bits = base.family === 4 ? 32 : 128;
  if (slash < 0) return { base, prefix: bits, text: `${base.text}/${bits}` };
  const number = text.slice(slash + 1);
  if (!/^(?:0|[1-9][0-9]{0,2})$/.test(number) || Number(number) > bits) return undefined;
  const prefix = Number(number);
  for (let bit = prefix; bit < bits; bit++) if (bitOf(base.bytes, bit) !== 0) return undefined;
  return { base, prefix, text: `${base.text}/${prefix}` };
}

/** Whether the range has this address. A range of one family has no address of the other. */
export function cidrHas(range: Cidr, address: Address): boolean {
  if (range.base.family !== address.family) return false;
  const whole = range.prefix >> 3;
  for (let i = 0; i < whole; i++) if (range.base.bytes[i] !== address.bytes[i]) return false;
  const rest = range.prefix & 7;
  return rest === 0 || (range.base.bytes[whole]! ^ address.bytes[whole]!) >> (8 - rest) === 0;
}

function bitOf(bytes: Uint8Array, bit: number): number {
  return (bytes[bit >> 3]! >> (7 - (bit & 7))) & 1;
}
