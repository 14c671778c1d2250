import { exitStatusOf, isDecantError, toDecantError, type DecantError } from '@decant/core';

import { bold, dim, printable, red, say } from './terminal.ts';

/** The reason of an abort that a signal of the terminal caused. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** Exit status of a command that the user interrupted. */
export const INTERRUPTED_STATUS = 130;

/** Tells a person what went wrong; returns the exit status. The stack is shown only with `debug`. */
export function reportFailure(thrown: unknown, { json, debug }: { json: boolean; debug: boolean }): number {
  if (thrown instanceof Interrupted) {
    say('interrupted');
    return INTERRUPTED_STATUS;
  }
  const error = toDecantError(thrown);
  if (json) {
    const { code, message, hint, details } = error;
    say(JSON.stringify({ error: { code, message, ...(hint === undefined ? {} : { hint }), details } }));
  } else {
    say(`${red(bold('error:'))} ${message(error.message)} ${dim(`[${error.code}]`)}`);
    for (const line of lastLinesOf(error)) say(dim(`  │ ${printable(line)}`));
    if (error.hint !== undefined) say(`  ${message(error.hint)}`);
  }
  if (debug) {
    for (let cause: unknown = thrown; cause instanceof Error; cause = cause.cause) {
      say(dim(cause.stack ?? String(cause)));
    }
  }
  return isDecantError(error) ? exitStatusOf(error.code) : 1;
}

/** What a program said last, where an error tells it and its message does not repeat it. */
function lastLinesOf({ message: text, details: { lastLines } }: DecantError): string[] {
  const lines = typeof lastLines === 'string' ? lastLines.split('\n') : Array.isArray(lastLines) ? lastLines : [];
  const known = lines.filter((line): line is string => typeof line === 'string' && line !== '');
  return text.endsWith(known.join('\n')) ? [] : known;
}

function message(text: string): string {
  return text.split('\n').map(printable).join('\n  ');
}
