/** What became of one test. */
export interface TestOutcome {
  /** Names of its suites and its own, separated by ` > `. */
  readonly fullName: string;
  readonly state: 'passed' | 'failed' | 'skipped';
  /** The reason a test gave when it skipped itself. */
  readonly note?: string | undefined;
}

/** What the reporter writes at the end of a run. */
export interface TestRun {
  readonly tests: readonly TestOutcome[];
  /** Test files that could not be loaded, and errors outside of any test. */
  readonly otherFailures: readonly string[];
}

export interface Summary {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** A line per backend, and what was wrong with required ones. */
  readonly lines: readonly string[];
}

/**
 * Counts a run, and tells for each `[backend:NAME]` in the names of tests how many of its tests ran. A backend in
 * `required` of which no test ran counts as one failure. `reasons` says why backends are missing, where that is known.
 */
export function summarize(
  run: TestRun,
  required: readonly string[],
  reasons: Readonly<Record<string, string>> = {},
): Summary {
  const lines: string[] = [];
  const backends = new Map<string, { ran: number; skipped: TestOutcome[] }>();
  for (const name of required) backends.set(name, { ran: 0, skipped: [] });
  for (const test of run.tests) {
    for (const name of backendsOf(test.fullName)) {
      const entry = backends.get(name) ?? { ran: 0, skipped: [] };
      backends.set(name, entry);
      if (test.state === 'skipped') entry.skipped.push(test);
      else entry.ran++;
    }
  }
  let lacking = 0;
  if (backends.size > 0) lines.push('Real backends in this run:');
  for (const [name, { ran, skipped }] of [...backends].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const notes = [...new Set(skipped.map((test) => test.note).filter((note) => note !== undefined))];
    const why = [reasons[name], ...notes].filter((note) => note !== undefined).join('; ');
    const explained = why === '' ? '' : `: ${why}`;
    if (ran > 0) {
      lines.push(`  ${name}: ${ran} ran${skipped.length === 0 ? '' : `, ${skipped.length} skipped${explained}`}`);
      continue;
    }
    const state = skipped.length === 0 ? 'no test of it was found' : `${skipped.length} skipped${explained}`;
    if (required.includes(name)) {
      lacking++;
      lines.push(`  ${name}: REQUIRED, but ${state}`);
    } else {
      lines.push(`  ${name}: not used, ${state}`);
    }
  }
  for (const failure of run.otherFailures) lines.push(`Failed outside of a test: ${failure}`);
  const count = (state: TestOutcome['state']) => run.tests.filter((test) => test.state === state).length;
  return {
    passed: count('passed'),
    failed: count('failed') + run.otherFailures.length + lacking,
    skipped: count('skipped'),
    lines,
  };
}

/** The names in `[backend:NAME]` marks, each once. */
export function backendsOf(fullName: string): string[] {
  return [...new Set([...fullName.matchAll(/\[backend:([a-z0-9][a-z0-9-]*)\]/g)].map((match) => match[1]!))];
}

/** The line that ends a run. */
export function closingLine({ passed, failed, skipped }: Pick<Summary, 'passed' | 'failed' | 'skipped'>): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/**
 * Backends that have to be there: those in `DECANT_REQUIRE` (names with commas between; empty for none), and
 * without that variable, in CI, those listed in `.ci/backends`.
 */
export function requiredBackends(
  env: Readonly<Record<string, string | undefined>>,
  listed: () => string,
): readonly string[] {
  const given = env['DECANT_REQUIRE'];
  const inCi = env['CI'] !== undefined && !['', '0', 'false'].includes(env['CI']);
  const text = given ?? (inCi ? listed().replace(/#.*/g, '') : '');
  return [...new Set(text.split(/[\s,]+/).filter((name) => name !== ''))];
}
