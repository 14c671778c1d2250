import { join } from 'node:path';

import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';

import { decant, decantJson, type DecantOptions, type MadeImage } from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { have, isRoot, output, tool } from './support/programs.ts';

const dockerHost = inject('dockerHost');
const available = isRoot && dockerHost !== null && have('skopeo', 'bwrap', 'nbdfuse', 'busybox');

const ENTRIES = [
  {
    path: 'etc/passwd',
    data: 'root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n77:x:5000:5001::/seven:/bin/sh\n',
  },
  { path: 'etc/group', data: 'root:x:0:\napp:x:1001:\nextra:x:2000:app\nalso:x:44:app\n' },
  { path: 'srv/work/', type: 'directory' as const, uid: 1000, gid: 2000 },
];
const SHOW =
  'busybox id -u; busybox id -g; busybox id -G; pwd; for a in "$@"; do echo "arg<$a>"; done; busybox env | busybox sort';

/** Configurations, and what follows the image on the command line. */
const CASES: Readonly<
  Record<string, { readonly config: Readonly<Record<string, unknown>>; readonly args: readonly string[] }>
> = {
  nothing: { config: { Env: [] }, args: ['/bin/sh', '-c', SHOW] },
  'user by name': { config: { User: 'app' }, args: ['/bin/sh', '-c', SHOW] },
  'user by number that has a name': { config: { User: '1000' }, args: ['/bin/sh', '-c', SHOW] },
  'user by number that has none': { config: { User: '4242' }, args: ['/bin/sh', '-c', SHOW] },
  'user whose name is a number': { config: { User: '77' }, args: ['/bin/sh', '-c', SHOW] },
  'user and group': { config: { User: 'app:extra' }, args: ['/bin/sh', '-c', SHOW] },
  'numbers for both': { config: { User: '4242:4343' }, args: ['/bin/sh', '-c', SHOW] },
  environment: {
    config: { Env: ['PATH=/bin', 'A=1', 'B=', 'C=x=y z', 'A=2', 'HOME=/elsewhere'] },
    args: ['/bin/sh', '-c', SHOW],
  },
  'a directory that is there': { config: { WorkingDir: '/srv/work/' }, args: ['/bin/sh', '-c', SHOW] },
  'a directory that is not there': {
    config: { WorkingDir: '/made/for/it', User: 'app' },
    args: ['/bin/sh', '-c', SHOW],
  },
  'entrypoint and command': {
    config: { Entrypoint: ['/bin/sh', '-c', SHOW, 'zero'], Cmd: ['one', 'two words'] },
    args: [],
  },
  'entrypoint and other arguments': {
    config: { Entrypoint: ['/bin/sh', '-c', SHOW, 'zero'], Cmd: ['one'] },
    args: ['', 'a b', '--c', '$HOME'],
  },
  'command alone': { config: { Cmd: ['/bin/sh', '-c', SHOW, 'zero', 'x'] }, args: [] },
  'command by name': { config: { Cmd: ['sh', '-c', SHOW] }, args: [] },
};

describe.skipIf(!available)('[backend:docker] [backend:bubblewrap] the configuration of an image', () => {
  let folder: TemporaryDirectory;
  let options: DecantOptions;
  const ids: string[] = [];

  beforeAll(async () => {
    folder = await temporaryDirectory('decant-e2e-');
    options = { home: join(folder.path, 'home') };
  });
  afterAll(async () => {
    const env = { ...process.env, DOCKER_HOST: dockerHost! };
    for (const [index] of Object.keys(CASES).entries()) {
      await tool('docker', ['rmi', '--force', `decant-config:${index}`], { env }).catch(() => undefined);
    }
    await folder?.[Symbol.asyncDispose]();
  });

  test.each(Object.entries(CASES).map(([name, value], index) => ({ name, index, ...value })))(
    '$name: what docker makes of it',
    async ({ index, config, args }) => {
      const source = await smallImage(folder.path, `image-${index}`, { config, entries: ENTRIES });
      const made = await decantJson<MadeImage>(
        ['image', 'import', source, '--streaming', '-n', `case:${index}`],
        options,
      );
      ids.push(made.image.id);
      const env = { ...process.env, DOCKER_HOST: dockerHost! };
      await tool('skopeo', [
        ...['copy', '--quiet', '--insecure-policy', '--dest-daemon-host', dockerHost!],
        ...[`${source}:latest`, `docker-daemon:decant-config:${index}`],
      ]);
      const theirs = await output('docker', ['run', '--rm', '--network', 'none', `decant-config:${index}`, ...args], {
        env,
      });
      const ours = await decant(['run', `case:${index}`, '--', ...args], options);
      expect(ours).toMatchObject({ status: 0 });
      expect(linesOf(ours.stdout)).toEqual(linesOf(theirs));
    },
  );

  test('is part of the id: the same files with other configurations are other images', () => {
    expect(ids).toHaveLength(Object.keys(CASES).length);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

/** Without the name that docker gives each container. */
function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => !line.startsWith('HOSTNAME='));
}
