import { refused, type Refusal } from './refusal.ts';

/** A header or trailer: its name in lower case, and its value without blanks around it, one character for each byte. */
export type Field = readonly [name: string, value: string];

export const MAX_FIELDS = 200;

const TOKEN = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/;

export function isToken(text: string): boolean {
  return TOKEN.test(text);
}

/**
 * Reads lines of fields that ended in CRLF each (RFC 9112, 5). Nothing is mended: a line that is folded, has a blank before its colon, or has a control
 * character is refused, because programs disagree about what it means.
 */
export function parseFields(lines: readonly string[], offset: number): readonly Field[] | Refusal {
  if (lines.length > MAX_FIELDS)
    return refused('head-too-large', `There are more than ${MAX_FIELDS} header fields.`, offset);
  const fields: Field[] = [];
  let at = offset;
  for (const line of lines) {
    if (line.startsWith(' ') || line.startsWith('\t'))
      return refused('bad-request', 'A header field is folded over lines.', at);
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(colon, 0));
    if (!isToken(name)) return refused('bad-request', 'A header field has no proper name.', at);
    const value = line.slice(colon + 1).replace(/^[ \t]+|[ \t]+$/g, '');
    if (/(?![\t\u0080-\u009f])\p{Cc}/u.test(value))
      return refused('bad-request', `The header field ${name} has a control character.`, at);
    fields.push([name.toLowerCase(), value]);
    at += line.length + 2;
  }
  return fields;
}

/** Values of a field, in order. */
export function valuesOf(fields: readonly Field[], name: string): readonly string[] {
  return fields.filter(([other]) => other === name).map(([, value]) => value);
}

/** Elements of a comma-separated field over all its lines, in lower case, without empty ones. */
export function elementsOf(fields: readonly Field[], name: string): readonly string[] {
  return valuesOf(fields, name)
    .flatMap((value) => value.split(','))
    .map((element) => element.trim().toLowerCase())
    .filter((element) => element !== '');
}
