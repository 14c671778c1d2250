import { screenOf, type Screen } from './render/terminal.ts';

/** A screen that remembers what was written: a terminal of some width, or a file. */
export function rememberingScreen(columns?: number): Screen & { readonly written: () => string } {
  let written = '';
  const stream = {
    isTTY: columns !== undefined,
    columns: columns ?? 0,
    write: (text: string | Uint8Array) => {
      written += String(text);
      return true;
    },
  };
  return { ...screenOf(stream, {}), written: () => written };
}
