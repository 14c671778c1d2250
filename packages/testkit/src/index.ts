export { fakeClock, type FakeClock } from './clock.ts';
export { debianBase, type DebianBaseOptions } from './debian-base.ts';
export { dockerAnswers, startDockerd, whyNoDockerd, type Dockerd } from './dockerd.ts';
export { busyboxEntries, writeOciLayout, type OciLayoutOptions } from './oci-layout.ts';
export { makeTar, type TarEntry } from './tar.ts';
export { mountsBelow, temporaryDirectory, unmountBelow, type TemporaryDirectory } from './temporary-directory.ts';
