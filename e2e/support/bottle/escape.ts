import { setTimeout as sleep } from 'node:timers/promises';

import { expect } from 'vitest';

import type { AuditEvent } from '../../../packages/bottle/src/index.ts';
import { expectRefused, PROMPT_MS, type Attempt, type Outcome } from './escape-case.ts';
import type { World } from './start-world.ts';
import type { Opened } from './world.ts';

const USERS = ['agent', 'root'] as const;
/** What must work beside every refusal. */
const CONTROL: Attempt = { do: 'get', url: 'https://allowed.test/control' };
/** Longest wait for an event to be written; counters of the kernel are looked at now and then. Milliseconds. */
const AUDIT_MS = 60_000;

/** Attempts to get out of one bottle, and what must be true of them. */
export class Escape {
  readonly opened: Opened;
  readonly #world: World;
  readonly #canary: string;

  constructor(world: World, opened: Opened, canary: string) {
    this.#world = world;
    this.opened = opened;
    this.#canary = canary;
  }

  /** Runs attempts one after the other in one process within the bottle. */
  async attack(
    attempts: readonly Attempt[],
    user = 'agent',
    env?: Readonly<Record<string, string>>,
  ): Promise<readonly Outcome[]> {
    const argv = ['/usr/bin/python3', '/attack/attack.py'];
    const input = JSON.stringify(attempts);
    const result = await this.#world.exec({
      slug: this.opened.slug,
      argv,
      user,
      input,
      ...(env === undefined ? {} : { env }),
    });
    if (result.exitCode !== 0 || result.timedOut)
      throw new Error(`the attack ended with ${result.exitCode}:\n${result.stdout}\n${result.stderr}`);
    return JSON.parse(result.stdout) as Outcome[];
  }

  /**
   * Tries as both users. Each attempt must be refused promptly, by one of `rules` where the refusal says it in HTTP; the audit must have as many new
   * denials as there were attempts, one of them by one of `audited`, unless that is empty, and never the secret; and the control must work right after.
   */
  async refuses(attempts: readonly Attempt[], rules: readonly string[], audited = rules): Promise<void> {
    const before = (await this.#events()).length;
    const tries = USERS.map(async (user) => {
      const outcomes = await this.attack([...attempts, CONTROL], user);
      const prompt = await this.#tryAgainIfSlow(attempts, outcomes.slice(0, -1), user);
      expectRefused(attempts, prompt, rules.length === 0 ? undefined : rules);
      const control = outcomes.at(-1);
      expect(control, `the control as ${user}: ${JSON.stringify(control)}`).toMatchObject({ status: 200 });
    });
    await Promise.all(tries);
    if (audited.length > 0) {
      await this.audited(audited, before, 'any');
      await this.#deniedTimes(attempts.length * USERS.length, before);
    }
    expect(JSON.stringify(await this.#events())).not.toContain(this.#canary);
    await this.nothingCameOut();
  }

  /** What is allowed works, as both users. */
  async works(attempts: readonly Attempt[]): Promise<void> {
    for (const user of USERS) {
      for (const [i, outcome] of (await this.attack(attempts, user)).entries()) {
        expect(outcome.received ?? '', `${JSON.stringify(attempts[i])} came to ${JSON.stringify(outcome)}`).toContain(
          '"answered":true',
        );
      }
    }
  }

  /** Waits until denials by all (or any) of these rules are among the events from `since` on. */
  async audited(rules: readonly string[], since = 0, how: 'all' | 'any' = 'all'): Promise<void> {
    const deadline = performance.now() + AUDIT_MS;
    for (;;) {
      const denied = new Set(
        (await this.#events()).slice(since).flatMap(({ decision, rule }) => (decision === 'deny' ? [rule] : [])),
      );
      const found = rules.filter((rule) => denied.has(rule));
      if (how === 'all' ? found.length === rules.length : found.length > 0) return;
      if (performance.now() > deadline)
        throw new Error(`the audit has ${[...denied].join()} and not ${how} of ${rules.join()}`);
      await sleep(100);
    }
  }

  /** Waits until the events from `since` on stand for so many denials. */
  async #deniedTimes(times: number, since: number): Promise<void> {
    const deadline = performance.now() + AUDIT_MS;
    for (;;) {
      const denials = (await this.#events()).slice(since).filter(({ decision }) => decision === 'deny');
      const found = denials.reduce((sum, { count = 1 }) => sum + count, 0);
      if (found >= times) return;
      if (performance.now() > deadline)
        throw new Error(`the audit has ${found} denials for ${times} attempts: ${JSON.stringify(denials)}`);
      await sleep(100);
    }
  }

  /** How many different names that match were looked up outside. */
  async asked(pattern: RegExp, times: number): Promise<void> {
    const names = new Set((await this.#world.sightings()).names.filter((name) => pattern.test(name)));
    expect([...names]).toHaveLength(times);
  }

  /** Not one connection or byte at any listener that nothing may reach. */
  async nothingCameOut(): Promise<void> {
    const { forbidden } = await this.#world.sightings();
    expect(Object.entries(forbidden).filter(([, { connections, bytes }]) => connections > 0 || bytes > 0)).toEqual([]);
  }

  /** A refusal that waits for a time-out is slow each time; one that a busy machine held up is not. */
  async #tryAgainIfSlow(
    attempts: readonly Attempt[],
    outcomes: readonly Outcome[],
    user: string,
  ): Promise<readonly Outcome[]> {
    let best = outcomes;
    for (let time = 0; time < 3 && best.some(({ ms }) => ms >= PROMPT_MS); time++) {
      const slow = [...best.keys()].filter((i) => best[i]!.ms >= PROMPT_MS);
      const again = await this.attack(
        slow.map((i) => attempts[i]!),
        user,
      );
      best = best.map((outcome, i) => (slow.includes(i) ? again[slow.indexOf(i)]! : outcome));
    }
    return best;
  }

  async #events(): Promise<readonly Partial<AuditEvent>[]> {
    return (await this.#world.audit(this.opened.slug)).map((line) => line.event ?? line);
  }
}
