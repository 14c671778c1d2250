import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { DecantError } from './errors.ts';
import { retry, Semaphore, sleep, untilAborted } from './wait.ts';

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

const busy = () => new DecantError('HTTP_UNREACHABLE', 'Nobody answers.');

describe('sleep', () => {
  it('waits, and leaves no timer when it is aborted', async () => {
    const controller = new AbortController();
    const removed = vi.spyOn(controller.signal, 'removeEventListener');
    const waited = sleep(1000, controller.signal);
    await vi.advanceTimersByTimeAsync(1000);
    await waited;
    expect(removed).toHaveBeenCalledTimes(1);
    const aborted = sleep(1000, controller.signal);
    controller.abort('reason');
    await expect(aborted).rejects.toBe('reason');
    expect(vi.getTimerCount()).toBe(0);
    await expect(sleep(1, AbortSignal.abort('before'))).rejects.toBe('before');
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('retry', () => {
  it('calls again with growing delays until it succeeds', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const calls: number[] = [];
    const started = Date.now();
    const result = retry(
      async (attempt) => {
        calls.push(Date.now() - started);
        if (attempt < 4) throw busy();
        return attempt;
      },
      { firstDelayMs: 100, maxDelayMs: 300, attempts: 9 },
    );
    await vi.runAllTimersAsync();
    expect(await result).toBe(4);
    expect(calls).toEqual([0, 100, 300, 600]);
  });

  it('throws the last failure as it came when attempts run out', async () => {
    const errors = [busy(), busy(), busy()];
    const result = retry(async (attempt) => Promise.reject(errors[attempt - 1]!), { attempts: 3 }).catch(
      (error: unknown) => error,
    );
    await vi.runAllTimersAsync();
    expect(await result).toBe(errors[2]);
  });

  it('does not call again after a failure that is for good', async () => {
    const action = vi.fn(() => Promise.reject(new DecantError('NOT_FOUND', 'No.')));
    await expect(retry(action)).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(action).toHaveBeenCalledTimes(1);
    const foreign = vi.fn(() => Promise.reject(new Error('bug')));
    await expect(retry(foreign)).rejects.toThrow('bug');
    expect(foreign).toHaveBeenCalledTimes(1);
  });

  it('ends with the reason of an abort, while it waits and while it calls', async () => {
    const controller = new AbortController();
    const waiting = retry(() => Promise.reject(busy()), {
      firstDelayMs: 1e6,
      maxDelayMs: 1e6,
      signal: controller.signal,
    });
    const outcome = expect(waiting).rejects.toBe('enough');
    await vi.advanceTimersByTimeAsync(10);
    controller.abort('enough');
    await outcome;
    expect(vi.getTimerCount()).toBe(0);

    const during = new AbortController();
    const calling = retry(
      async () => {
        during.abort('now');
        throw busy();
      },
      { signal: during.signal },
    );
    await expect(calling).rejects.toBe('now');
  });
});

describe('Semaphore', () => {
  it('lets in at most the limit, first come, first served', async () => {
    const semaphore = new Semaphore(2);
    const order: number[] = [];
    let inside = 0;
    let most = 0;
    const all = [0, 1, 2, 3, 4].map((index) =>
      semaphore.run(async () => {
        order.push(index);
        most = Math.max(most, ++inside);
        await sleep(10);
        inside--;
      }),
    );
    await vi.runAllTimersAsync();
    await Promise.all(all);
    expect(order).toEqual([0, 1, 2, 3, 4]);
    expect(most).toBe(2);
  });

  it('gives the place back after a failure', async () => {
    const semaphore = new Semaphore(1);
    await expect(semaphore.run(() => Promise.reject(new Error('x')))).rejects.toThrow('x');
    expect(await semaphore.run(async () => 'in')).toBe('in');
  });

  it('loses no place to a waiter that gave up', async () => {
    const semaphore = new Semaphore(1);
    const first = semaphore.run(() => sleep(10));
    const controller = new AbortController();
    const action = vi.fn(async () => undefined);
    const given = semaphore.run(action, controller.signal);
    const patient = new AbortController();
    const removed = vi.spyOn(patient.signal, 'removeEventListener');
    const third = semaphore.run(async () => 'third', patient.signal);
    controller.abort('gone');
    await expect(given).rejects.toBe('gone');
    await vi.runAllTimersAsync();
    await first;
    expect(await third).toBe('third');
    expect(removed).toHaveBeenCalledTimes(1);
    expect(action).not.toHaveBeenCalled();
    expect(await semaphore.run(async () => 'again')).toBe('again');
  });

  it('never enters with a signal that is aborted already', async () => {
    const semaphore = new Semaphore(1);
    await expect(semaphore.run(async () => 1, AbortSignal.abort('no'))).rejects.toBe('no');
    expect(await semaphore.run(async () => 2)).toBe(2);
  });

  it.each([0, -1, 1.5, Number.NaN, Infinity])('refuses a limit of %d', (limit) => {
    expect(() => new Semaphore(limit)).toThrow(RangeError);
  });
});

describe('untilAborted', () => {
  it('settles as the work does, and leaves no listener', async () => {
    const { signal } = new AbortController();
    const removed = vi.spyOn(signal, 'removeEventListener');
    await expect(untilAborted(Promise.resolve(1), signal)).resolves.toBe(1);
    await expect(untilAborted(Promise.reject(busy()), signal)).rejects.toThrow('Nobody answers.');
    await expect(untilAborted(Promise.resolve(2), undefined)).resolves.toBe(2);
    await vi.waitFor(() => expect(removed).toHaveBeenCalledTimes(2));
  });

  it('ends with the reason of the signal, and drops what becomes of the work', async () => {
    const controller = new AbortController();
    const { promise, reject } = Promise.withResolvers<never>();
    const waited = untilAborted(promise, controller.signal);
    controller.abort('reason');
    await expect(waited).rejects.toBe('reason');
    reject(busy());
    await expect(untilAborted(Promise.resolve(1), AbortSignal.abort('before'))).rejects.toBe('before');
  });
});
