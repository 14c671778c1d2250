import { describe, expect, test } from 'vitest';

import type { AuditEvent } from '../audit/audit-event.ts';
import { Recorder } from './recorder.ts';

const denial = (host: string) => ({ type: 'dns', decision: 'deny', rule: 'no-route', host }) as const;

function collecting() {
  const events: AuditEvent[] = [];
  const acknowledge: (() => void)[] = [];
  const sink = {
    send: (batch: readonly AuditEvent[], done: () => void) => {
      events.push(...batch);
      acknowledge.push(done);
    },
  };
  return { events, acknowledge, sink };
}

describe('Recorder', () => {
  test('events come in order and are cut to their bounds, in printable characters', () => {
    const { events, sink } = collecting();
    const recorder = new Recorder(sink, 100, () => 0);
    recorder.record({ ...denial('a'.repeat(300)), path: '/é\n' });
    recorder.record({ type: 'request', decision: 'allow', rule: 'r' });
    recorder.flush();
    expect(events.map(({ decision }) => decision)).toEqual(['deny', 'allow']);
    expect(events[0]).toMatchObject({ time: '1970-01-01T00:00:00.000Z', path: '/??' });
    expect(events[0]?.host).toHaveLength(253);
  });

  test('a reason is cut, and a denied name that may be data is not shown; one that was allowed is', () => {
    const { events, sink } = collecting();
    const recorder = new Recorder(sink, 100, () => 0);
    const host = 'mzxw6ytboi4dqnzygm2tsmjr.evil.test';
    recorder.record({ ...denial(host), reason: `\u001b[2J${'r'.repeat(600)}` });
    recorder.record({ type: 'request', decision: 'allow', rule: 'r', host });
    recorder.flush();
    expect(events.map((event) => event.host)).toEqual(['mzxw***.evil.test', host]);
    expect(events[0]?.reason).toBe(`?[2J${'r'.repeat(505)}...`);
  });

  test('denials beyond a rate are counted together, and none is lost in the count', () => {
    const { events, sink } = collecting();
    const recorder = new Recorder(sink, 100_000, () => 5000);
    for (let i = 0; i < 1000; i++) recorder.record(denial(`h${i}`));
    recorder.flush();
    expect(events).toHaveLength(201);
    expect(events.reduce((sum, { count = 1 }) => sum + count, 0)).toBe(1000);
    expect(events.at(-1)?.host).toBeUndefined();
  });

  test('each second has its own rate, and while too much waits denials are only counted', () => {
    let now = 0;
    const { events, sink } = collecting();
    const recorder = new Recorder(sink, 100_000, () => now);
    for (let i = 0; i < 250; i++) recorder.record(denial('a.test'));
    now = 1000;
    recorder.record(denial('b.test'));
    recorder.flush();
    expect(events.filter(({ host }) => host === 'b.test')).toHaveLength(1);
    const late = collecting();
    const few = new Recorder(late.sink, 5, () => 0);
    for (let i = 0; i < 20; i++) few.record(denial('a.test'));
    few.flush();
    expect(late.events.map(({ count = 1 }) => count)).toEqual([1, 1, 1, 1, 1, 15]);
  });

  test('while too much waits to be taken it says so, and no longer once it was taken', () => {
    const { acknowledge, sink } = collecting();
    const recorder = new Recorder(sink, 10, () => 0);
    for (let i = 0; i < 10; i++) recorder.record({ type: 'request', decision: 'allow', rule: 'r' });
    expect(recorder.backlogged).toBe(true);
    recorder.flush();
    expect(recorder.backlogged).toBe(true);
    for (const done of acknowledge) done();
    expect(recorder.backlogged).toBe(false);
  });
});
