import { DecantError } from '@decant/core';

import { Interrupted } from './failure.ts';

/** Most characters of a secret. */
const LONGEST = 4096;
const ENTER = /[\r\n]/;
const END_OF_INPUT = '\u0004';
const INTERRUPT = '\u0003';
const ERASE = new Set(['\u007F', '\b']);

/**
 * Reads a secret: from a terminal with a question and without showing what is typed, else the whole of standard input.
 * @throws USAGE when it is longer than 4,096 characters; Interrupted at Ctrl-C; the reason of the signal.
 */
export async function readSecret(
  question: string,
  options: { readonly signal: AbortSignal },
  input: NodeJS.ReadStream = process.stdin,
): Promise<string> {
  options.signal.throwIfAborted();
  const typed = input.isTTY;
  let secret = '';
  const onAbort = () => input.destroy();
  options.signal.addEventListener('abort', onAbort, { once: true });
  if (typed) {
    process.stderr.write(question);
    input.setRawMode(true);
  }
  input.setEncoding('utf8');
  try {
    for await (const text of input as AsyncIterable<string>) {
      for (const character of text) {
        if (typed && (ENTER.test(character) || character === END_OF_INPUT)) return secret;
        if (typed && character === INTERRUPT) throw new Interrupted('interrupted');
        secret = typed && ERASE.has(character) ? secret.slice(0, -1) : secret + character;
      }
      if (secret.length > LONGEST) throw new DecantError('USAGE', `A key has at most ${LONGEST} characters.`);
    }
    return secret.trim();
  } catch (error) {
    // What the input says when it is closed while it is read.
    options.signal.throwIfAborted();
    throw error;
  } finally {
    options.signal.removeEventListener('abort', onAbort);
    if (typed) {
      input.setRawMode(false);
      process.stderr.write('\n');
    }
  }
}
