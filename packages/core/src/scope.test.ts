import { describe, expect, it } from 'vitest';

import { Scope } from './scope.ts';

describe('Scope', () => {
  it('undoes in reverse order, one step at a time', async () => {
    const order: string[] = [];
    {
      await using scope = new Scope();
      scope.defer(() => order.push('first'));
      scope.defer(async () => {
        await Promise.resolve();
        order.push('second');
      });
      scope.use({ [Symbol.asyncDispose]: async () => void order.push('async resource') });
      scope.use({ [Symbol.dispose]: () => void order.push('resource') });
    }
    expect(order).toEqual(['resource', 'async resource', 'second', 'first']);
  });

  it('unwinds to the end when steps fail', async () => {
    const order: string[] = [];
    const scope = new Scope();
    scope.defer(() => order.push('last'));
    scope.defer(() => {
      throw new Error('one');
    });
    await expect(scope[Symbol.asyncDispose]()).rejects.toThrow('one');
    expect(order).toEqual(['last']);

    scope.defer(() => Promise.reject(new Error('a')));
    scope.defer(() => Promise.reject(new Error('b')));
    const error: unknown = await scope[Symbol.asyncDispose]().catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(AggregateError);
    expect((error as AggregateError).errors.map(String)).toEqual(['Error: b', 'Error: a']);
  });

  it('hands its steps on, and undoes each once', async () => {
    let undone = 0;
    const scope = new Scope();
    scope.defer(() => undone++);
    const moved = scope.move();
    await scope[Symbol.asyncDispose]();
    expect(undone).toBe(0);
    await moved[Symbol.asyncDispose]();
    await moved[Symbol.asyncDispose]();
    expect(undone).toBe(1);
  });
});
