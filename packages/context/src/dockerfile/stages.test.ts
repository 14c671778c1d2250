import { describe, expect, it } from 'vitest';

import { readDockerfile } from './read-dockerfile.ts';
import { findStage, stagesBuilt } from './stages.ts';

const { stages } = readDockerfile(`FROM a AS base
FROM base AS Tools
FROM b AS unused
FROM c AS mid
COPY --from=tools /x /x
FROM d AS final
RUN --mount=type=bind,from=mid,target=/m true
FROM e AS last
`);
const built = (target: string | undefined, skipUnused: boolean) =>
  stagesBuilt(stages, findStage(stages, target)!, { skipUnused }).map(({ name }) => name);

describe('findStage', () => {
  it('finds by name in any case and by index, and the last without a target', () => {
    expect(findStage(stages, 'TOOLS')?.index).toBe(1);
    expect(findStage(stages, '2')?.name).toBe('unused');
    expect(findStage(stages)?.name).toBe('last');
    for (const target of ['6', '-1', '', 'nothing', '1.0']) expect(findStage(stages, target)).toBeUndefined();
  });
});

describe('stages of one name', () => {
  it('are the last of them, to a target and to what copies from them', () => {
    const twice = readDockerfile('FROM a AS x\nFROM b AS x\nFROM c\nCOPY --from=x /x /x\n').stages;
    expect(findStage(twice, 'x')?.base).toBe('b');
    expect(twice[2]!.stagesUsed).toEqual([1]);
  });
});

describe('stagesBuilt', () => {
  it('follows bases, copies and mounts when unused stages are skipped', () => {
    expect(built('final', true)).toEqual(['base', 'tools', 'mid', 'final']);
    expect(built(undefined, true)).toEqual(['last']);
  });

  it('is all up to the target when they are not', () => {
    expect(built('mid', false)).toEqual(['base', 'tools', 'unused', 'mid']);
    expect(built(undefined, false)).toHaveLength(6);
  });
});
