import { expect } from 'vitest';

/** What an attempt of attack.py came to. */
export interface Outcome {
  readonly ms: number;
  readonly error?: string | null;
  readonly detail?: string;
  readonly received?: string;
  readonly state?: string;
  readonly status?: number;
  readonly rcode?: number;
  readonly answers?: number;
  readonly value?: number;
  readonly counts?: Readonly<Record<string, number>>;
  readonly [more: string]: unknown;
}

export interface Attempt {
  readonly do: string;
  readonly [argument: string]: unknown;
}

/**
 * A refusal may take this long, in milliseconds: whoever waits for a time-out has learnt nothing. On a machine that has other
 * things to do one may be slower; it is then tried again.
 */
export const PROMPT_MS = 2000;

const REFUSING_ERRORS = [
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'EPERM',
  'EACCES',
  'ENOSYS',
  'TLS',
  'NAME',
  'ENETUNREACH',
  'EHOSTUNREACH',
  'EAFNOSUPPORT',
  'ENOENT',
  'EINVAL',
  'EPROTONOSUPPORT',
  'OSError',
  'gaierror',
  'RemoteDisconnected',
  'ESRCH',
  'ENODEV',
];

/** The rule of a refusal in the clear, or the kind of error. */
export function refusalOf(outcome: Outcome): string | undefined {
  const rule = /decant-rule: ([a-z0-9-]+)|decant refused this \(([a-z0-9-]+)\)|(http2): HTTP/.exec(
    outcome.received ?? '',
  );
  if (rule !== null) return rule[1] ?? rule[2] ?? rule[3];
  if (outcome.rcode !== undefined && outcome.rcode !== 0) return `rcode ${outcome.rcode}`;
  if (outcome.error !== undefined && outcome.error !== null) return outcome.error;
  if (outcome.received === '' && (outcome.state === 'closed' || outcome.state === 'ECONNRESET')) return outcome.state;
  return undefined;
}

/** Fails unless every attempt was refused, promptly and visibly, and nothing came from behind the fence. */
export function expectRefused(
  attempts: readonly Attempt[],
  outcomes: readonly Outcome[],
  rules?: readonly string[],
): void {
  expect(outcomes).toHaveLength(attempts.length);
  for (const [i, outcome] of outcomes.entries()) {
    const what = `${JSON.stringify(attempts[i]).slice(0, 300)} came to ${JSON.stringify(outcome).slice(0, 500)}`;
    expect(outcome.received ?? '', what).not.toMatch(/REACHED|"answered":true/);
    const refusal = refusalOf(outcome);
    expect(refusal, what).toBeDefined();
    if (outcome.error !== undefined && outcome.error !== null) expect(REFUSING_ERRORS, what).toContain(outcome.error);
    if (rules !== undefined && (outcome.received ?? '') !== '') expect(rules, what).toContain(refusal);
    expect(outcome.ms, what).toBeLessThan(PROMPT_MS);
  }
}
