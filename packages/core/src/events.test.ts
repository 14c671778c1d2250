import { expect, it } from 'vitest';

import { stage, type ProgressEvent } from './events.ts';

it('reports the start of a stage, and its end with what it did', async () => {
  const events: ProgressEvent[] = [];
  const result = await stage(
    (event) => events.push(event),
    'layout',
    async (finish) => {
      finish({ bytes: 7 });
      return 'done';
    },
    'Writing',
  );
  expect(result).toBe('done');
  expect(events).toEqual([
    { type: 'stage-started', stage: 'layout', message: 'Writing' },
    { type: 'stage-finished', stage: 'layout', bytes: 7, elapsedMs: expect.any(Number) },
  ]);
});

it('has no end event for a stage that fails', async () => {
  const events: ProgressEvent[] = [];
  const failing = stage(
    (event) => events.push(event),
    'upload',
    () => Promise.reject(new Error('cut')),
  );
  await expect(failing).rejects.toThrow('cut');
  expect(events.map((event) => event.type)).toEqual(['stage-started']);
});
