import { stripVTControlCharacters } from 'node:util';

/** Whether standard error is a terminal that may be redrawn and coloured. */
export const interactive = process.stderr.isTTY && process.env['TERM'] !== 'dumb';

const colours = interactive && (process.env['NO_COLOR'] ?? '') === '';

const paint = (code: string) => (text: string) => (colours ? `\u001B[${code}m${text}\u001B[0m` : text);
export const bold = paint('1');
export const dim = paint('2');
export const red = paint('31');
export const green = paint('32');
export const yellow = paint('33');

/** Text from elsewhere, safe to print: no control sequences, no control characters but tabs. */
export function printable(text: string): string {
  // oxlint-disable-next-line no-control-regex -- removing them is the point
  return stripVTControlCharacters(text).replace(/[\u0000-\u0008\u000A-\u001F\u007F]/g, '�');
}

export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** One document on standard output. */
export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, process.stdout.isTTY ? 2 : 0)}\n`);
}

/** Lines of columns on standard output, as wide as their widest cell. */
export function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  const all = [header, ...rows].map((row) => row.map(printable));
  const widths = header.map((_, column) => Math.max(...all.map((row) => (row[column] ?? '').length)));
  for (const row of all) {
    const line = row.map((cell, column) => (column === row.length - 1 ? cell : cell.padEnd(widths[column] ?? 0)));
    process.stdout.write(`${line.join('  ').trimEnd()}\n`);
  }
}
