import { randomBytes } from 'node:crypto';
import { join } from 'node:path';

import { afterAll, beforeAll } from 'vitest';

import type { Backend } from '../../../packages/bottle/src/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../../../packages/testkit/src/index.ts';
import { makeAttackImage } from './attack-image.ts';
import { Escape } from './escape.ts';
import { POLICY } from './policy.ts';
import { startWorld, type World } from './start-world.ts';
import type { OpenRequest } from './world.ts';

/** What the tests of one backend have in common: an internet, and bottles behind it. Ready once its `beforeAll` has run. */
export interface EscapeStage {
  /** The operator's secret, which is never to be seen. */
  readonly canary: string;
  readonly world: World;
  /** A folder of the host that goes with the tests. */
  readonly folder: string;
  /** Where bottles are kept. */
  readonly directory: string;
  open(name: string, more?: Partial<OpenRequest>): Promise<Escape>;
}

type AttackImage = ReturnType<typeof makeAttackImage>;
/** One for all backends of a test file: no bottle writes to it. */
let image: { readonly folder: TemporaryDirectory; readonly made: AttackImage } | undefined;
afterAll(async () => {
  await image?.folder[Symbol.asyncDispose]();
});

/** The image of the attacks, made once in a file of tests. */
export async function attackImage(): Promise<AttackImage> {
  if (image === undefined) {
    const folder = await temporaryDirectory('decant-escape-image-');
    image = { folder, made: makeAttackImage(folder.path) };
  }
  return image.made;
}

/** Sets the stage for the tests of the suite it is called in, and clears it after them. */
export function escapeStage(backend: Backend['name']): EscapeStage {
  const canary = `canary${randomBytes(10).toString('hex')}`;
  let folder: TemporaryDirectory | undefined;
  let world: World | undefined;
  const ready = <T>(part: T | undefined): T => {
    if (part === undefined) throw new Error('the stage is not set');
    return part;
  };
  beforeAll(async () => {
    await attackImage();
    folder = await temporaryDirectory('decant-escape-');
    world = await startWorld(folder.path, canary);
  });
  afterAll(async () => {
    await world?.[Symbol.asyncDispose]();
    await folder?.[Symbol.asyncDispose]();
  });
  return {
    canary,
    get world() {
      return ready(world);
    },
    get folder() {
      return ready(folder).path;
    },
    get directory() {
      return join(ready(folder).path, 'bottles');
    },
    async open(name, more = {}) {
      const request = { backend, name, directory: this.directory, image: await attackImage(), policy: POLICY };
      const opened = await this.world.open({
        ...request,
        environment: { AGENT_TOKEN: `agent-${canary}` },
        ...more,
      });
      return new Escape(this.world, opened, canary);
    },
  };
}
