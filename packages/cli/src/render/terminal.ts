import { stripVTControlCharacters } from 'node:util';

import { textWidth } from './text-width.ts';

/** An output that people or programs read. */
export interface Screen {
  /** Whether lines may be drawn again: a terminal that understands control sequences. */
  readonly redraws: boolean;
  readonly style: Style;
  /** Columns of a line now. */
  columns(): number;
  write(text: string): void;
}

type Paint = (text: string) => string;
export type Style = Readonly<Record<'bold' | 'dim' | 'red' | 'green' | 'yellow', Paint>>;

type Environment = Readonly<Record<string, string | undefined>>;

/** A stream as a screen. Colours only on a terminal, and not with `NO_COLOR` set to anything. */
export function screenOf(
  stream: Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'write'>,
  env: Environment = process.env,
): Screen {
  const redraws = stream.isTTY && env['TERM'] !== 'dumb';
  const colours = redraws && (env['NO_COLOR'] ?? '') === '';
  const paint =
    (code: number): Paint =>
    (text) =>
      colours ? `\u001B[${code}m${text}\u001B[0m` : text;
  return {
    redraws,
    style: { bold: paint(1), dim: paint(2), red: paint(31), green: paint(32), yellow: paint(33) },
    columns: () => stream.columns || 80,
    write: (text) => stream.write(text),
  };
}

/** Results. */
export const stdout = screenOf(process.stdout);
/** Everything else. */
export const stderr = screenOf(process.stderr);

/**
 * Text from elsewhere, safe to print on one line: no control sequences, no control characters, nothing that
 * turns the direction of writing around.
 */
export function printable(text: string): string {
  return (
    stripVTControlCharacters(text)
      .replaceAll('\t', '  ')
      // oxlint-disable-next-line no-control-regex -- removing them is the point
      .replace(/[\u0000-\u001F\u007F-\u009F\u202A-\u202E\u2066-\u2069]/g, '�')
  );
}

/** A line on standard error. */
export function say(text: string): void {
  stderr.write(`${text}\n`);
}

/** A line on standard output. */
export function print(text: string): void {
  stdout.write(`${text}\n`);
}

/** One document on standard output. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, process.stdout.isTTY ? 2 : 0));
}

/** Lines of columns on standard output. */
export function printTable(header: readonly string[], rows: readonly (readonly string[])[]): void {
  for (const line of tableLines(header, rows)) print(line);
}

/** Lines of columns, each as wide as its widest cell. */
export function tableLines(header: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const all = [header, ...rows].map((row) => row.map(printable));
  const widths = header.map((_, column) => all.reduce((most, row) => Math.max(most, textWidth(row[column] ?? '')), 0));
  return all.map((row) =>
    row
      .map((cell, column) => cell + ' '.repeat((widths[column] ?? 0) - textWidth(cell)))
      .join('  ')
      .trimEnd(),
  );
}
