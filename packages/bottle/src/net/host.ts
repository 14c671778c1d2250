import { domainToASCII, domainToUnicode } from 'node:url';

import { parseAddress, readsAsLegacyAddress } from './address.ts';
import { refused, type Refusal } from './refusal.ts';

/** A host in its one form: lower case, punycode, no trailing dot; or a canonical address. */
export type Host =
  | { readonly type: 'name'; readonly text: string }
  | { readonly type: 'address'; readonly text: string };

/** Most characters of a name without its trailing dot (RFC 1035, 255 octets on the wire). */
const MAX_NAME = 253;
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * The one form of a host that a client or a policy wrote, or why it has none. An IPv6 address stands in brackets or alone.
 *
 * Letters, digits and hyphens alone make a label. Other characters are taken as an internationalised name only when they are what that name is
 * shown as: what the mapping of UTS #46 would silently turn into something else (full-width letters, soft hyphens, ligatures, dots of
 * other scripts) is refused. The older forms of IPv4 addresses are refused, because programs disagree about them.
 */
export function canonicalHost(text: string): Host | Refusal {
  // Four bytes for a character, twice: no name is longer in any form that is taken.
  if (text.length === 0 || text.length > 2048) return refused('bad-host', 'The host is empty or too long.');
  const bracketed = text.startsWith('[') && text.endsWith(']');
  if (bracketed || text.includes(':')) {
    const address = parseAddress(bracketed ? text.slice(1, -1) : text);
    // In brackets stands IPv6 only, in whatever form; a mapped address is the IPv4 address from here on.
    if (address === undefined || !text.includes(':'))
      return refused('bad-host', 'The host is not a plain IPv6 address.');
    return { type: 'address', text: address.text };
  }
  const address = parseAddress(text);
  if (address !== undefined) return { type: 'address', text };
  const ascii = asciiName(text.endsWith('.') ? text.slice(0, -1) : text);
  if (ascii === undefined) return refused('bad-host', 'The host is not a name of letters, digits and hyphens.');
  // A dotted quad with a trailing dot is a name to some and an address to others.
  if (readsAsLegacyAddress(ascii) || parseAddress(ascii) !== undefined) {
    return refused('legacy-address', 'The host is a number that is not a plain IPv4 address.');
  }
  if (ascii.length > MAX_NAME) return refused('bad-host', `The host is longer than ${MAX_NAME} characters.`);
  for (const label of ascii.split('.')) {
    if (!LABEL.test(label))
      return refused('bad-host', 'The host has a label that is empty, too long or begins or ends with a hyphen.');
  }
  return { type: 'name', text: ascii };
}

function asciiName(text: string): string | undefined {
  const lower = text.toLowerCase();
  if (/^[a-z0-9.-]*$/.test(lower)) {
    // toLowerCase makes ASCII of some other characters (the Kelvin sign); they are no letters of a host.
    return /^[ -~]*$/.test(text) ? lower : undefined;
  }
  // Of ASCII, only what a label may have: `@`, `#`, `%`, blanks and control characters end here.
  if (/[\p{Cc} -,/:-`{-~]/u.test(lower)) return undefined;
  const ascii = domainToASCII(lower);
  return ascii !== '' && domainToUnicode(ascii) === lower.normalize('NFC') ? ascii : undefined;
}
