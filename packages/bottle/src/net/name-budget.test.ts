import { describe, expect, it } from 'vitest';

import { NameBudget } from './name-budget.ts';

describe('the budget of names', () => {
  it('counts a name below a wildcard once, and begins anew after its window', () => {
    let now = 0;
    const budget = new NameBudget({ namesBelow: 1, windowMs: 1000 }, () => now);
    const rule = (name: string) => budget.admit(name, 'w.test')?.rule;
    expect([rule('a.w.test'), rule('a.w.test'), rule('b.w.test')]).toEqual([undefined, undefined, 'dns-budget']);
    now = 999;
    expect(rule('b.w.test')).toBe('dns-budget');
    now = 1000;
    expect([rule('b.w.test'), rule('a.w.test')]).toEqual([undefined, 'dns-budget']);
    now = 2000;
    expect(rule('a.w.test')).toBeUndefined();
  });
});
