import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { formatReference, parseReference } from './reference.ts';
import { containersMirrors } from './registries-conf.ts';
import { failure } from './testing/streams.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'registries-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function places(config: string, reference: string): Promise<string[]> {
  const file = join(directory, 'registries.conf');
  await writeFile(file, config);
  const lookup = containersMirrors({ env: { CONTAINERS_REGISTRIES_CONF: file } });
  return (await lookup(parseReference(reference))).map(formatReference);
}

const DIGEST = `sha256:${'ab'.repeat(32)}`;

describe('containersMirrors', () => {
  it('puts mirrors before the registry, with the rest of the name after their location', async () => {
    const config = `
unqualified-search-registries = ["docker.io"]
short-name-mode = "enforcing"
[aliases]
"fedora" = "registry.example/fedora"
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "localhost:5000/hub"
insecure = true
[[registry.mirror]]
location = "mirror.example"
`;
    expect(await places(config, 'alpine')).toEqual([
      'localhost:5000/hub/library/alpine:latest',
      'mirror.example/library/alpine:latest',
      'docker.io/library/alpine:latest',
    ]);
    expect(await places(config, `a/b:v1@${DIGEST}`)).toEqual([
      `localhost:5000/hub/a/b:v1@${DIGEST}`,
      `mirror.example/a/b:v1@${DIGEST}`,
      `docker.io/a/b:v1@${DIGEST}`,
    ]);
    expect(await places(config, 'quay.example/a/b')).toEqual(['quay.example/a/b:latest']);
  });

  it('takes the longest prefix, on whole parts only, and moves names to another location', async () => {
    const config = `
[[registry]]
prefix = "r.example"
location = "far.example/all"
[[registry]]
prefix = "r.example/team"
location = "near.example:443"
[[registry]]
prefix = "*.sub.example"
location = "sub-mirror.example/x"
[[registry]]
prefix = "*.deep.sub.example"
blocked = true
`;
    expect(await places(config, 'r.example/team/app:1')).toEqual(['near.example:443/app:1']);
    // In whatever order they stand.
    const reversed = config
      .split(/(?=\[\[)/)
      .toReversed()
      .join('\n');
    expect(await places(reversed, 'r.example/team/app:1')).toEqual(['near.example:443/app:1']);
    expect(await places(config, 'r.example/teams/app:1')).toEqual(['far.example/all/teams/app:1']);
    expect(await places(config, 'r.example:5000/team/app:1')).toEqual(['r.example:5000/team/app:1']);
    expect(await places(config, 'a.sub.example/app')).toEqual(['sub-mirror.example/x/app:latest']);
    expect(await places(config, 'sub.example/app')).toEqual(['sub.example/app:latest']);
    expect(await failure(places(config, 'a.deep.sub.example/app'))).toBe('FORBIDDEN');
  });

  it('asks mirrors by digest or by tag only where it says so', async () => {
    const config = `
[[registry]]
location = "r.example"
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"
[[registry]]
location = "s.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "digests.example"
`;
    expect(await places(config, 'r.example/a:1')).toEqual(['tags.example/a:1', 'r.example/a:1']);
    expect(await places(config, `r.example/a@${DIGEST}`)).toEqual([
      `digests.example/a@${DIGEST}`,
      `r.example/a@${DIGEST}`,
    ]);
    expect(await places(config, 's.example/a:1')).toEqual(['s.example/a:1']);
    expect(await places(config, `s.example/a@${DIGEST}`)).toEqual([
      `digests.example/a@${DIGEST}`,
      `s.example/a@${DIGEST}`,
    ]);
  });

  it("reads the user's file, and drop-in files in their order, the last of which counts", async () => {
    const env = { XDG_CONFIG_HOME: directory };
    const folder = join(directory, 'containers/registries.conf.d');
    await mkdir(folder, { recursive: true });
    const lookup = async () => (await containersMirrors({ env })(parseReference('r.example/a:1'))).map(formatReference);
    expect(await lookup()).toEqual(['r.example/a:1']);
    const rule = (location: string) => `[[registry]]\nprefix = "r.example"\nlocation = "${location}"\n`;
    await writeFile(join(directory, 'containers/registries.conf'), rule('main.example'));
    expect(await lookup()).toEqual(['main.example/a:1']);
    await writeFile(join(folder, '20-b.conf'), rule('second.example'));
    await writeFile(join(folder, '10-a.conf'), rule('first.example'));
    await writeFile(join(folder, 'readme.txt'), 'not TOML');
    expect(await lookup()).toEqual(['second.example/a:1']);
  });

  it.each([
    ['not TOML', '[[registry]\n'],
    ['another shape', '[[registry]]\nlocation = 5\n'],
    ['no place', '[[registry]]\nblocked = true\n'],
    ['a scheme', '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = "http://m.example"\n'],
    ['a mirror without a place', '[[registry]]\nlocation = "r.example"\n[[registry.mirror]]\nlocation = ""\n'],
    ['credentials', '[[registry]]\nlocation = "me:secret@r.example"\n'],
    ['a name that is none', '[[registry]]\nprefix = "r.example"\nlocation = "m.example/UPPER"\n'],
  ])('refuses %s, naming the file', async (_, config) => {
    await expect(places(config, 'r.example/a:1')).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringContaining('registries.conf') as string,
    });
  });

  it('reads no more than it should have to', async () => {
    expect(await failure(places(`#${' '.repeat(1024 * 1024)}`, 'a'))).toBe('CONFIG_INVALID');
    const folder = join(directory, 'containers/registries.conf.d');
    await mkdir(folder, { recursive: true });
    for (let i = 0; i < 101; i++) await writeFile(join(folder, `${i}.conf`), '');
    const lookup = containersMirrors({ env: { XDG_CONFIG_HOME: directory } });
    expect(await failure(lookup(parseReference('a')))).toBe('CONFIG_INVALID');
  });

  it('refuses a file that was named and is not there', async () => {
    const lookup = containersMirrors({ env: { CONTAINERS_REGISTRIES_CONF: join(directory, 'none') } });
    expect(await failure(lookup(parseReference('a')))).toBe('CONFIG_INVALID');
  });
});
