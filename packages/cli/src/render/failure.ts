import { exitStatusOf, toDecantError } from '@decant/core';

import { printable, stderr, type Screen } from './terminal.ts';

/** The reason of an abort that a signal caused. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted';
}

/** Exit status of a command that the user interrupted. */
export const INTERRUPTED_STATUS = 130;

export interface FailureOptions {
  /** One JSON document on one line, `{"type":"error","error":{code,message,hint?,details}}`, instead of text. */
  readonly json: boolean;
  /** Stacks of the error and of its causes. */
  readonly debug: boolean;
}

/** Says on standard error what went wrong; returns the exit status. */
export function reportFailure(thrown: unknown, { json, debug }: FailureOptions, screen: Screen = stderr): number {
  const { redraws, style } = screen;
  const line = (text: string) => screen.write(`${text}\n`);
  if (thrown instanceof Interrupted) {
    // A terminal shows ^C where the cursor was.
    line(json ? JSON.stringify({ type: 'interrupted' }) : `${redraws ? '\n' : ''}interrupted`);
    return INTERRUPTED_STATUS;
  }
  const error = toDecantError(thrown);
  const { code, message, hint, details } = error;
  if (json) {
    line(JSON.stringify({ type: 'error', error: { code, message, ...(hint === undefined ? {} : { hint }), details } }));
  } else {
    line(`${style.red(style.bold('error:'))} ${indented(message)} ${style.dim(`[${code}]`)}`);
    for (const text of lastLinesOf(message, details['lastLines'])) line(style.dim(`  │ ${printable(text)}`));
    if (hint !== undefined) line(`  ${indented(hint)}`);
  }
  if (debug) {
    for (let cause: unknown = thrown; cause instanceof Error; cause = cause.cause) {
      line(style.dim(cause.stack ?? cause.message));
    }
  }
  return exitStatusOf(code);
}

/** What a program said last, unless the message repeats it. */
function lastLinesOf(message: string, said: unknown): string[] {
  const lines = typeof said === 'string' ? said.split('\n') : Array.isArray(said) ? said.map(String) : [];
  const known = lines.filter((text) => text !== '');
  return message.endsWith(known.join('\n')) ? [] : known;
}

function indented(text: string): string {
  return text.split('\n').map(printable).join('\n  ');
}
