import type { Backend } from '../../backends/backend.ts';
import type { Bottle } from '../bottle.ts';
import type { OpenBottleDeps } from '../deps.ts';
import { openBottle } from '../open-bottle.ts';
import { dockerBackend } from '../../backends/docker/docker-backend.ts';
import { nativeBackend } from '../../backends/native/native-backend.ts';
import type { Manifest } from '../../manifest/schema.ts';
import { environmentOf, specOf } from '../../manifest/spec.ts';
import { planBottle } from '../../plan/plan-bottle.ts';

/** A backend by its name; of docker, the daemon that DOCKER_HOST names. */
export function backendNamed(name: string | undefined): Backend {
  return name === 'docker' ? dockerBackend() : nativeBackend();
}

/** A bottle on an erofs image file, with everything real; native where the manifest names no backend. */
export async function openRealBottle(
  directory: string,
  imageFile: string,
  manifest: Omit<Manifest, 'image'> = {},
  deps: Partial<OpenBottleDeps> = {},
): Promise<Bottle> {
  const backend = backendNamed(manifest.backend);
  const small = { memory: 268_435_456, processes: 64, disk: 16_777_216, cpus: 1 };
  const { spec, environment } = specOf({
    name: 'agent',
    ...manifest,
    image: 'file:test',
    limits: { ...small, ...manifest.limits },
  });
  return await openBottle(await planBottle(spec, { backend }), {
    directory,
    backend,
    environment: environmentOf(environment),
    resolveImage: async () => ({
      image: {
        id: 'sha256:test',
        disk: { file: imageFile },
        filesystem: 'erofs',
        config: { Env: ['PATH=/bin'], User: 'app', WorkingDir: '/home/app', Cmd: ['sleep', '60'] },
      },
      [Symbol.asyncDispose]: async () => undefined,
    }),
    ...deps,
  });
}

/** The output and exit code of a command in a bottle. */
export async function outputOf(
  bottle: Bottle,
  argv: readonly string[],
): Promise<{ readonly exitCode: number; readonly text: string }> {
  const exec = await bottle.exec({ argv, timeoutMs: 120_000 });
  exec.stdin.end();
  const texts = await Promise.all([exec.stdout, exec.stderr].map(textOf));
  const { exitCode } = await exec.exit;
  return { exitCode, text: texts.join('') };
}

async function textOf(stream: NodeJS.ReadableStream): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of stream) pieces.push(Buffer.from(piece as Uint8Array));
  return Buffer.concat(pieces).toString('utf8');
}
