export interface DockerfileSecret {
  readonly id: string;
  /** Line of the first step that mounts it, from 1. */
  readonly line: number;
  /** Whether some step says that it fails without. */
  readonly required: boolean;
}

export interface DockerfileStage {
  readonly index: number;
  /** Lower case, as stages are looked up, or null. */
  readonly name: string | null;
  /** What FROM names, with its variables replaced. */
  readonly base: string;
  /** Index of the earlier stage that `base` names, or null. */
  readonly baseStage: number | null;
  /** Of `FROM --platform`, with its variables replaced, or null. */
  readonly platform: string | null;
  /** Line of FROM, from 1. */
  readonly line: number;
  /** Indexes of the earlier stages that its base or its files come from. */
  readonly stagesUsed: readonly number[];
  /** Images that its base or its files come from, without repetitions. */
  readonly externalImages: readonly string[];
  /** What `RUN --mount=type=secret` asks for, without repetitions. */
  readonly secrets: readonly DockerfileSecret[];
}

/** The stage that `--target` means, by name in any case or by index; the last one without it. */
export function findStage(stages: readonly DockerfileStage[], target?: string): DockerfileStage | undefined {
  if (target === undefined) return stages.at(-1);
  const named = stages.findLast((stage) => stage.name === target.toLowerCase());
  return named ?? (/^\d+$/.test(target) ? stages[Number(target)] : undefined);
}

/**
 * The stages that run to build `target`, in order: those it needs when the engine skips the others, as BuildKit
 * does, or else all up to it.
 */
export function stagesBuilt(
  stages: readonly DockerfileStage[],
  target: DockerfileStage,
  options: { readonly skipUnused: boolean },
): readonly DockerfileStage[] {
  const upToTarget = stages.slice(0, target.index + 1);
  if (!options.skipUnused) return upToTarget;
  const needed = new Set([target.index]);
  // Stages use earlier ones only.
  for (const stage of upToTarget.toReversed()) {
    if (needed.has(stage.index)) for (const used of stage.stagesUsed) needed.add(used);
  }
  return upToTarget.filter(({ index }) => needed.has(index));
}
