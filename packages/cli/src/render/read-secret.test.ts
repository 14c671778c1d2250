import { PassThrough } from 'node:stream';

import { expect, test, vi } from 'vitest';

import { Interrupted } from './failure.ts';
import { readSecret } from './read-secret.ts';

const never = { signal: new AbortController().signal };

/** Standard input: of another program, or a terminal whose modes are remembered. */
function inputOf(isTTY: boolean) {
  const modes: boolean[] = [];
  const input = Object.assign(new PassThrough(), { isTTY, setRawMode: (raw: boolean) => void modes.push(raw) });
  return { input: input as unknown as NodeJS.ReadStream & PassThrough, modes };
}

test('all of what another program writes, without what is around it', async () => {
  const { input, modes } = inputOf(false);
  input.write('  dk_one');
  input.end('_two\n\n');
  expect(await readSecret('Key: ', never, input)).toBe('dk_one_two');
  expect(modes).toEqual([]);
});

test.each([
  ['typed\r', 'typed'],
  ['typed\nrest', 'typed'],
  ['typo\u007F\u007Fed\r', 'tyed'],
  ['\b\bx\u0004', 'x'],
])('what is typed at a terminal, up to the end of the line: %j', async (keys, secret) => {
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    const { input, modes } = inputOf(true);
    input.write(keys);
    expect(await readSecret('Key: ', never, input)).toBe(secret);
    expect(modes).toEqual([true, false]);
    expect(write.mock.calls.map(([text]) => text)).toEqual(['Key: ', '\n']);
  } finally {
    write.mockRestore();
  }
});

test('Ctrl-C at a terminal interrupts, and a key without an end is refused; the terminal is as it was', async () => {
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  try {
    const interrupted = inputOf(true);
    interrupted.input.write('ab\u0003');
    await expect(readSecret('Key: ', never, interrupted.input)).rejects.toBeInstanceOf(Interrupted);
    expect(interrupted.modes).toEqual([true, false]);
    const endless = inputOf(true);
    endless.input.write('x'.repeat(4097));
    await expect(readSecret('Key: ', never, endless.input)).rejects.toMatchObject({ code: 'USAGE' });
    expect(endless.modes).toEqual([true, false]);
  } finally {
    write.mockRestore();
  }
});

test('a signal ends the wait, with its reason', async () => {
  for (const isTTY of [false, true]) {
    const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
    try {
      const { input } = inputOf(isTTY);
      const controller = new AbortController();
      const reason = new Interrupted('interrupted');
      const reading = readSecret('Key: ', { signal: controller.signal }, input);
      input.write('abc');
      controller.abort(reason);
      await expect(reading).rejects.toBe(reason);
      await expect(readSecret('Key: ', { signal: controller.signal }, inputOf(isTTY).input)).rejects.toBe(reason);
    } finally {
      write.mockRestore();
    }
  }
});
