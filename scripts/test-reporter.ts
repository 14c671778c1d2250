import { writeFileSync } from 'node:fs';

import type { Reporter, TestCase, TestModule } from 'vitest/node';

import type { TestOutcome, TestRun } from './test-report.ts';

// Vitest loads a reporter from a file by its default export.
/** Writes what became of every test to the file that DECANT_TEST_RESULTS names, for `scripts/test.ts`. */
export default class ResultsReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly { readonly message: string }[]): void {
    const file = process.env['DECANT_TEST_RESULTS'];
    if (file === undefined) return;
    const run: TestRun = {
      tests: modules.flatMap((module) => [...module.children.allTests()].map(outcomeOf)),
      otherFailures: [
        ...modules.flatMap((module) => moduleFailures(module)),
        ...errors.map((error) => error.message.split('\n')[0]!),
      ],
    };
    writeFileSync(file, JSON.stringify(run));
  }
}

function outcomeOf(test: TestCase): TestOutcome {
  const result = test.result();
  if (result.state === 'passed' || result.state === 'failed') return { fullName: test.fullName, state: result.state };
  return { fullName: test.fullName, state: 'skipped', ...(result.state === 'skipped' ? { note: result.note } : {}) };
}

/** Errors of the file itself and of suites: imports, hooks, a suite without a test. */
function moduleFailures(module: TestModule): string[] {
  const errors = [...module.errors(), ...[...module.children.allSuites()].flatMap((suite) => suite.errors())];
  return errors.map((error) => `${module.relativeModuleId}: ${error.message.split('\n')[0]!}`);
}
