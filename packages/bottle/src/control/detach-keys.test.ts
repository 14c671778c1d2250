import { text } from 'node:stream/consumers';

import fc from 'fast-check';
import { expect, it } from 'vitest';

import { DetachKeys } from './detach-keys.ts';

async function typed(pieces: readonly string[]): Promise<{ passed: string; detached: boolean }> {
  let detached = false;
  const keys = new DetachKeys(() => (detached = true));
  for (const piece of pieces) if (!detached) keys.write(Buffer.from(piece, 'latin1'));
  if (!detached) keys.end();
  return { passed: await text(keys), detached };
}

it('ctrl-p ctrl-q leaves, in one piece or two, and neither is passed on', async () => {
  expect(await typed(['ab\x10\x11cd'])).toEqual({ passed: 'ab', detached: true });
  expect(await typed(['ab\x10', '\x11', 'cd'])).toEqual({ passed: 'ab', detached: true });
  expect(await typed(['\x10\x10\x11'])).toEqual({ passed: '\x10', detached: true });
});

it('every other key is passed on, ctrl-p with the one after it or at the end', async () => {
  expect(await typed(['a\x10', 'b\x11', '\x10'])).toEqual({ passed: 'a\x10b\x11\x10', detached: false });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.string({ unit: fc.constantFrom('a', '\x10', '\x11'), maxLength: 5 }), { maxLength: 6 }),
      async (pieces) => {
        const all = pieces.join('');
        const at = all.indexOf('\x10\x11');
        expect(await typed(pieces)).toEqual({ passed: at < 0 ? all : all.slice(0, at), detached: at >= 0 });
      },
    ),
  );
});
