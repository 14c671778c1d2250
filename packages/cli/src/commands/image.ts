import type { Command } from 'commander';

import { withCommonOptions } from '../options.ts';

export function addImageCommands(program: Command): void {
  const image = program.command('image').description('build, import, list and read images');

  withCommonOptions(image.command('create'))
    .description('build a Dockerfile and make it an image')
    .argument('[context]', 'directory that holds what the Dockerfile copies')
    .option('-f, --file <file>', 'the Dockerfile (default: Dockerfile in the context)')
    .option('-n, --name <name[:tag]>', 'name of the image (default: the name of the directory)')
    .option('--streaming', 'make a cas-streaming image, which runs while it arrives')
    .option('--local', 'build straight with an engine of this machine, not through the image-builder')
    .option('--build-arg <key=value>', 'set a build argument; may be given more than once', collect)
    .option('--target <stage>', 'stop at this stage')
    .option('--platform <platform>', 'linux/amd64 or linux/arm64 (default: that of what builds it)')
    .option('--builder <engine>', 'with --local: auto, docker, docker-buildkit, buildah or podman (default: auto)')
    .option(
      '--secret <id=ID,src=FILE|env=VAR>',
      'with --local: a secret that steps can mount; may be given more than once',
      collect,
    )
    .option('--network <mode>', 'with --local: network of steps: default, none or host')
    .option('--cache <mode>', 'earlier results: use, ignore (leave them as they are) or refresh (replace them)')
    .option('--no-cache', 'the same as --cache ignore')
    .option('--registry-auth <file>', "with --local: logins for registries of base images, as in docker's config.json")
    .option('--from-image <base>', 'build nothing: add --workspace to this image')
    .option('--workspace <dir>', "with --from-image: the directory that becomes the agent's workspace")
    .option('--gitignore', 'with --workspace: leave out what git would not track')
    .option('--disk-mb <n>', 'size of the writable disk the image asks for, in MiB')
    .option('--free-mb <n>', 'room to leave in an ext4 image, in MiB, instead of a size')
    .option('--label <label>', 'label of an ext4 image: up to 16 characters')
    .option('--uuid <uuid>', 'UUID of an ext4 image (default: from its content)')
    .option('--source-date-epoch <seconds>', 'store later times of files as this one (default: $SOURCE_DATE_EPOCH)')
    .option('--limit <name=value>', 'another bound on what the image may hold, such as layerBytes=1000000000', collect)
    .action(async (context: string | undefined, options) =>
      (await import('./image-create.ts')).createAction(context, options),
    );

  withCommonOptions(image.command('import'))
    .description('make an image from one that exists')
    .argument(
      '<source>',
      'registry:REF, docker:REF, podman:REF, buildah:REF, oci:DIR[:TAG], oci-archive:FILE[:TAG], ' +
        'docker-archive:FILE[:NAME], tar:FILE, dir:PATH, overlay2:PATH or raw:FILE',
    )
    .option('-n, --name <name[:tag]>', 'name of the image (default: from the source)')
    .option('--streaming', 'make a cas-streaming image, which runs while it arrives')
    .option('--disk-mb <n>', 'size of the writable disk the image asks for, in MiB')
    .option('--free-mb <n>', 'room to leave in an ext4 image, in MiB, instead of a size')
    .option('--label <label>', 'label of an ext4 image: up to 16 characters')
    .option('--uuid <uuid>', 'UUID of an ext4 image (default: from its content)')
    .option('--source-date-epoch <seconds>', 'store later times of files as this one (default: $SOURCE_DATE_EPOCH)')
    .option('--limit <name=value>', 'another bound on what the image may hold, such as layerBytes=1000000000', collect)
    .option('--platform <platform>', 'which one of an image for several (default: this machine)')
    .action(async (source: string, options) => (await import('./image-create.ts')).importAction(source, options));

  withCommonOptions(image.command('pull'))
    .description('copy an image of a registry into a directory, as an OCI layout')
    .argument('<reference>', '[HOST[:PORT]/]NAME[:TAG][@DIGEST]')
    .argument('<directory>', 'directory that is missing or empty')
    .option('--platform <platform>', 'which one of an image for several (default: this machine)')
    .option('--all-platforms', 'an index with the images of all platforms, as it is')
    .action(async (reference: string, directory: string, options) =>
      (await import('./image-transfer.ts')).pullAction(reference, directory, options),
    );

  withCommonOptions(image.command('push'))
    .description('copy an image to a registry')
    .argument(
      '<source>',
      'oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], docker:REF, podman:REF, buildah:REF or registry:REF',
    )
    .argument('<reference>', '[HOST[:PORT]/]NAME[:TAG]')
    .option('--platform <platform>', 'which one of an image for several (default: this machine)')
    .option('--all-platforms', 'an index with the images of all platforms, as it is')
    .action(async (source: string, reference: string, options) =>
      (await import('./image-transfer.ts')).pushAction(source, reference, options),
    );

  withCommonOptions(image.command('ls'))
    .description('list the named images')
    .action(async (options) => (await import('./image-names.ts')).listAction(options));

  withCommonOptions(image.command('inspect'))
    .description('show one image')
    .argument('<image>', 'name or id')
    .action(async (ref: string, options) => (await import('./image-names.ts')).inspectAction(ref, options));

  withCommonOptions(image.command('rm'))
    .description('remove names; the images they point at stay')
    .argument('<name...>', 'names')
    .action(async (names: string[], options) => (await import('./image-names.ts')).removeAction(names, options));

  withCommonOptions(image.command('tag'))
    .description('give an image another name')
    .argument('<image>', 'name or id')
    .argument('<name>', 'the new NAME[:TAG]')
    .action(async (ref: string, name: string, options) =>
      (await import('./image-names.ts')).tagAction(ref, name, options),
    );

  withCommonOptions(image.command('history'))
    .description('show what a name pointed at, newest first')
    .argument('<name>', 'NAME[:TAG]')
    .action(async (name: string, options) => (await import('./image-names.ts')).historyAction(name, options));

  withCommonOptions(image.command('diff'))
    .description('show by path what differs between two streaming images, and what the second one costs')
    .argument('<before>', 'name or id')
    .argument('<after>', 'name or id')
    .option('--ignore-times', 'leave out entries of which only the modification time differs')
    .option('--exit-code', 'end with status 1 when they differ')
    .action(async (before: string, after: string, options) =>
      (await import('./image-diff.ts')).diffAction(before, after, options),
    );

  withCommonOptions(image.command('verify'))
    .description('read and re-hash every chunk of an image')
    .argument('<image>', 'name or id')
    .action(async (ref: string, options) => (await import('./image-data.ts')).verifyAction(ref, options));

  withCommonOptions(image.command('export'))
    .description('write an image to a file, as a disk')
    .argument('<image>', 'name or id')
    .option('--raw <file>', 'write every byte')
    .option('--sparse <file>', 'leave holes where the image has holes')
    .action(async (ref: string, options) => (await import('./image-data.ts')).exportAction(ref, options));

  withCommonOptions(image.command('serve'))
    .description('serve an image over NBD until interrupted')
    .argument('<image>', 'name or id')
    .requiredOption('--socket <path>', 'Unix socket to listen on')
    .action(async (ref: string, options) => (await import('./image-data.ts')).serveAction(ref, options));
}

function collect(value: string, previous: readonly string[] = []): string[] {
  return [...previous, value];
}
