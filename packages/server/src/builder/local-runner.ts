import { mkdir, rename } from 'node:fs/promises';
import { join } from 'node:path';

import { chooseBuilder, detectBuilders, type BuildRequest } from '@decant/builder-local';
import { run } from '@decant/core/node';

import type { BuildRunner, BuiltImage, RunnerRequest } from './runner.ts';

/**
 * Runs builds of the operator on an engine of this machine: whoever holds the data directory may use the engine as well,
 * so nothing is confined.
 */
export function localRunner(): BuildRunner {
  return {
    async ready(signal) {
      chooseBuilder(await detectBuilders({ signal }));
    },
    run: build,
    async [Symbol.asyncDispose]() {},
  };
}

async function build(request: RunnerRequest): Promise<BuiltImage> {
  const { fields, dockerfile, directory, signal } = request;
  const wanted: BuildRequest = {
    context: {
      dockerfile: { displayPath: fields.dockerfile, bytes: dockerfile },
      materialize: (to) => unpackContext(request.contextFile, to, signal),
    },
    buildArgs: fields.build_args,
    target: fields.target,
    ...(fields.architecture === undefined ? {} : { platform: `linux/${fields.architecture}` as const }),
    cache: fields.cache,
    workDirectory: directory,
  };
  const { driver, why } = chooseBuilder(await detectBuilders({ signal }), { request: wanted });
  request.onEngine(driver.engine);
  request.onLine(`Building with ${driver.engine}: ${why}`);
  const events = driver.build(wanted, { signal });
  for (;;) {
    const step = await events.next();
    if (step.done === true) {
      await using result = step.value;
      const out = join(directory, 'image');
      await mkdir(out);
      const { file } = await result.exportImage(out, { signal });
      // Disposing of the result would remove what it exported.
      const archiveFile = join(directory, 'image.tar');
      await rename(file, archiveFile);
      return { archiveFile };
    }
    if (step.value.type === 'log') request.onLine(step.value.line);
    else if (step.value.type === 'warning') request.onLine(`Warning: ${step.value.message}`);
  }
}

/** Unpacks an inspected context; owners are not kept, as no engine keeps them. */
export async function unpackContext(archive: string, directory: string, signal: AbortSignal): Promise<void> {
  await run('tar', ['-xf', archive, '-C', directory, '--no-same-owner'], { signal });
}
