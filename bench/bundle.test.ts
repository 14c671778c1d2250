import { expect, it } from 'vitest';

import { benchBundle } from './bundle.ts';
import { missedGoals } from './report.ts';

it('the main entry of cas is small enough for a web page', async () => {
  const result = await benchBundle();
  expect(missedGoals(result)).toEqual([]);
  expect(result.fields['cas_gzip_kb']).toBeGreaterThan(10);
});
