/** A bound on a field. */
export interface Goal {
  readonly least?: number;
  readonly most?: number;
}

/** What a benchmark writes to `bench/results/NAME.json`, besides the machine it ran on. */
export interface BenchResult {
  readonly name: string;
  /** Made with a small input: only shows that it runs. */
  readonly short: boolean;
  readonly input: Readonly<Record<string, string | number>>;
  /** Ratios to a peer measured in the same run, and counts; null when the peer cannot be had. */
  readonly fields: Readonly<Record<string, number | null>>;
  readonly goals: Readonly<Record<string, Goal>>;
  /** Bare times and rates of this machine; held to nothing. */
  readonly absolute: Readonly<Record<string, number>>;
  /** What the fields were made from, where that is of interest. */
  readonly details?: Readonly<Record<string, unknown>>;
}

export type Verdict = 'met' | 'MISSED' | 'not measured' | '';

export function verdictOf(value: number | null, goal: Goal | undefined): Verdict {
  if (goal === undefined) return '';
  if (value === null) return 'not measured';
  const { least = -Infinity, most = Infinity } = goal;
  return value >= least && value <= most ? 'met' : 'MISSED';
}

/** Names of the fields that are below what they must be. */
export function missedGoals({ fields, goals }: BenchResult): string[] {
  return Object.entries(fields)
    .filter(([name, value]) => verdictOf(value, goals[name]) === 'MISSED')
    .map(([name]) => name);
}

/** A table for a terminal. */
export function tableOf({ fields, goals }: BenchResult): string {
  const rows = Object.entries(fields).map(([name, value]) => {
    const goal = goals[name];
    return [name, value === null ? '-' : value.toFixed(2), goalText(goal), verdictOf(value, goal)];
  });
  const all = [['field', 'measured', 'must be', ''], ...rows];
  const widths = [0, 1, 2].map((column) => Math.max(...all.map((row) => row[column]!.length)));
  return all
    .map(([name, value, goal, verdict]) =>
      [name!.padEnd(widths[0]!), value!.padStart(widths[1]!), goal!.padStart(widths[2]!), verdict].join('  ').trimEnd(),
    )
    .join('\n');
}

function goalText(goal: Goal | undefined): string {
  if (goal?.least !== undefined) return `≥ ${goal.least}`;
  return goal?.most === undefined ? '' : `≤ ${goal.most}`;
}
