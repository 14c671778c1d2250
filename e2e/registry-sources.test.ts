import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { findProgram } from '../packages/core/src/node/index.ts';
import { temporaryDirectory, type TemporaryDirectory } from '../packages/testkit/src/index.ts';
import { createRegistryHandler } from '../packages/oci/src/index.ts';
import { LayoutMaker, makeTar, serveHandler, type TestServer } from '../packages/oci/src/testing/index.ts';
import { createFileObjectStore } from '../packages/dataplane/src/index.ts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { decant, decantJson, failure, succeed, type DecantOptions, type MadeImage } from './support/decant.ts';
import { smallImage } from './support/images.ts';
import { have, isRoot, output, tool } from './support/programs.ts';

const podman = await findProgram('podman');

describe.skipIf(!isRoot || !have('busybox', 'bwrap', 'nbdfuse', 'skopeo', 'buildah'))(
  '[backend:buildah] sources of images',
  () => {
    let folder: TemporaryDirectory;
    let options: DecantOptions;
    let layout: string;
    let registry: TestServer;

    beforeAll(async () => {
      folder = await temporaryDirectory('decant-e2e-');
      const storage = join(folder.path, 'storage.conf');
      const places = `graphroot = "${folder.path}/storage"\nrunroot = "${folder.path}/run"\n`;
      await writeFile(storage, `[storage]\ndriver = "vfs"\n${places}`);
      const config = join(folder.path, 'registries.conf');
      layout = await smallImage(folder.path, 'layout', {
        config: { Cmd: ['sh', '-c', 'echo $WHO'], Env: ['PATH=/bin', 'WHO=me'] },
      });
      const store = createFileObjectStore({ directory: join(folder.path, 'registry'), fsync: 'never' });
      registry = await serveHandler(createRegistryHandler({ store }));
      await writeFile(config, `[[registry]]\nprefix = "registry.invalid"\nlocation = "${registry.host}/mirrored"\n`);
      options = {
        home: join(folder.path, 'home'),
        env: { CONTAINERS_STORAGE_CONF: storage, CONTAINERS_REGISTRIES_CONF: config },
      };
    });
    afterAll(async () => {
      await registry?.[Symbol.asyncDispose]();
      await folder?.[Symbol.asyncDispose]();
    });

    const imported = async (source: string, name: string) => {
      const made = await decantJson<MadeImage>(['image', 'import', source, '--streaming', '-n', name], options);
      return made.image.id;
    };

    test('one image is one image, whatever it comes in, and its configuration comes with it', async () => {
      const env = { ...process.env, CONTAINERS_STORAGE_CONF: options.env!['CONTAINERS_STORAGE_CONF'] };
      const [oci, saved, zipped] = ['i.oci', 'i.tar', 'a:b.tar.gz'].map((name) => join(folder.path, name)) as [
        string,
        string,
        string,
      ];
      await tool('skopeo', ['copy', layout, `oci-archive:${oci}:v1`]);
      await tool('skopeo', ['copy', layout, `docker-archive:${saved}:app:v1`]);
      await tool('sh', ['-c', 'gzip -1 <"$0" >"$1"', saved, zipped]);
      await tool('buildah', ['pull', '--quiet', `docker-archive:${saved}`], { env });
      await succeed(['image', 'push', layout, `${registry.host}/mirrored/app:v1`], options);
      const id = await imported(layout, 'layout');
      const sources = [
        `oci-archive:${oci}`,
        `oci-archive:${oci}:v1`,
        `docker-archive:${saved}`,
        `docker-archive:${zipped}:app:v1`,
        'buildah:docker.io/library/app:v1',
        'registry:registry.invalid/app:v1',
        ...(podman === undefined ? [] : ['podman:docker.io/library/app:v1']),
      ];
      for (const [i, source] of sources.entries()) expect(await imported(source, `copy-${i}`), source).toBe(id);
      expect((await decant(['run', 'copy-4'], options)).stdout).toBe('me\n');
    });

    test('an index goes through whole, and only one with the platform is imported', async () => {
      const maker = new LayoutMaker(join(folder.path, 'multi'));
      for (const architecture of ['amd64', 'arm64', 'riscv64']) {
        await maker.image({
          layers: [makeTar([{ path: 'arch', data: architecture }])],
          platform: { os: 'linux', architecture },
        });
      }
      const mediaType = 'application/vnd.oci.image.index.v1+json';
      const manifests = maker.manifests.map((manifest, i) => ({
        ...manifest,
        platform: { os: 'linux', architecture: ['amd64', 'arm64', 'riscv64'][i] },
      }));
      const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, manifests }));
      const digest = await maker.blob(index);
      const annotations = { 'org.opencontainers.image.ref.name': 'v1' };
      await maker.finish([{ mediaType, digest, size: index.length, annotations }]);
      const place = `${registry.host}/multi:v1`;
      const pushed = await decantJson(
        ['image', 'push', `oci:${maker.directory}:v1`, place, '--all-platforms'],
        options,
      );
      expect(pushed).toMatchObject({ digest, sentBlobs: 6 });
      const raw = await output('skopeo', ['inspect', '--raw', '--tls-verify=false', `docker://${place}`]);
      expect(raw).toBe(index.toString());
      const target = join(folder.path, 'multi-copy');
      const pulled = await decantJson(['image', 'pull', place, target, '--all-platforms'], options);
      expect(pulled).toMatchObject({ digest, blobs: 6, platforms: ['linux/amd64', 'linux/arm64', 'linux/riscv64'] });
      await tool('skopeo', ['copy', '--all', `oci:${target}`, `oci:${join(folder.path, 'again')}:v1`]);
      const missing = await failure(['image', 'import', `registry:${place}`, '--platform', 'linux/s390x'], options);
      expect(missing).toMatchObject({ status: 4, code: 'OCI_PLATFORM_MISSING' });
      expect(missing.message).toContain('linux/amd64, linux/arm64, linux/riscv64');
    });

    test('what cannot be copied is said in one sentence', async () => {
      const full = join(folder.path, 'full');
      await mkdir(full);
      await writeFile(join(full, 'x'), '');
      const place = `${registry.host}/mirrored/app:v1`;
      for (const [args, status, code] of [
        [['image', 'push', `dir:${full}`, place], 2, 'USAGE'],
        [['image', 'push', layout, place, '--all-platforms', '--platform', 'linux/amd64'], 2, 'USAGE'],
        [['image', 'push', 'buildah:docker.io/library/never:v1', place], 4, 'NOT_FOUND'],
        [['image', 'pull', place, full], 2, 'USAGE'],
        [['image', 'pull', `${registry.host}/never:v1`, join(folder.path, 'never')], 4, 'NOT_FOUND'],
        [['image', 'import', `oci-archive:${join(folder.path, 'i.oci')}:v2`], 2, 'OCI_SOURCE_INVALID'],
        [['image', 'import', `overlay2:${full}`], 2, 'OCI_SOURCE_INVALID'],
      ] as const) {
        expect(await failure(args, options), args.join(' ')).toMatchObject({ status, code });
      }
    });
  },
);
