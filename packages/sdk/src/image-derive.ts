import { basename, resolve } from 'node:path';

import { readDirectoryTree } from '@decant/context/node';
import { parseImageName, stage } from '@decant/core';
import { openScratchDirectory } from '@decant/core/node';
import type { RootTree } from '@decant/publish';
import { createScratch } from '@decant/rootfs';

import { filesystemFacts, type FilesystemRequest } from './filesystem-request.ts';
import { gitIgnoreRules } from './git-ignore.ts';
import { imageResult, makeImage } from './image-make.ts';
import { openBaseTree } from './image-tree.ts';
import { nameOfPath } from './import-source.ts';
import type { ImageResult } from './results.ts';
import type { Session, WorkOptions } from './session.ts';
import { addWorkspace, configWithWorkspace, workplaceOf } from './workspace.ts';

export interface DeriveImageRequest extends FilesystemRequest {
  /** What it is made from: a source as `import` takes it, or the name or id of an image. */
  readonly base: string;
  /** Directory that becomes the agent's workspace: `workspace` in the home of the image's user. */
  readonly workspace: string;
  /** Leave out what git would not track; default false. */
  readonly gitignore?: boolean | undefined;
  /** `NAME[:TAG]`; default: the name of the directory. */
  readonly name?: string | undefined;
  /** Of a base for several platforms; default: Linux on this machine's processor. */
  readonly platform?: string | undefined;
}

/**
 * Makes an image from another one with a directory added as the agent's workspace: owned by the image's user, its
 * working directory, and trusted. No engine is needed. Equal bases and directories make equal images.
 * @throws the errors of `import`, CONTEXT_UNREADABLE, CONTEXT_CHANGED, CONTEXT_ENTRY_UNSUPPORTED, JAIL_FAILED for a user
 * that the image does not have.
 */
export async function deriveImage(
  session: Session,
  request: DeriveImageRequest,
  { onEvent, signal }: WorkOptions,
): Promise<ImageResult> {
  const started = performance.now();
  const name = request.name ?? nameOfPath(basename(resolve(request.workspace)));
  parseImageName(name);
  const filesystem = filesystemFacts(request);
  const files = await stage(onEvent, 'context', async (finish) => {
    const rules = request.gitignore === true ? gitIgnoreRules : undefined;
    const tree = await readDirectoryTree(request.workspace, { rules, signal });
    finish({
      items: tree.entries.length,
      bytes: tree.entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
    });
    return tree;
  });
  await using scratch = await openScratchDirectory(session.paths.scratch);
  const options = { scratchDirectory: scratch.path, onEvent, signal };
  await using base = await openBaseTree(session, request.base, { ...options, platform: request.platform });
  // The user is known by the image's files, and the configuration by the user.
  await using kept = await createScratch(scratch.path);
  const { root, warnings } = await base.flatten({ scratch: kept, limits: filesystem.limits, onEvent, signal });
  const workplace = workplaceOf(root, base.config);
  const tree: RootTree = {
    config: configWithWorkspace(base.config, workplace.path),
    flatten: async () => ({ root: await addWorkspace(root, workplace, files, kept), warnings }),
  };
  const facts = { ...filesystem, name, baseImage: request.base };
  const { published, layoutMs } = await makeImage(session, tree, facts, options);
  const total = Math.round(performance.now() - started);
  return imageResult(session, published, { build: 0, layout: layoutMs, total }, signal);
}
