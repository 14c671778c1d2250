import { readDockerfileFeatures } from '@decant/context';

import { missingFeatures } from './check-request.ts';
import { noEngine, type DetectedBuilder } from './detect.ts';
import type { BuilderDriver, BuilderName, BuildRequest } from './driver.ts';

export interface BuilderWants {
  /** The only engine to use; `docker` also means BuildKit in docker. Default `auto`. */
  readonly engine?: 'auto' | BuilderName | undefined;
  /** What will be built: an engine that has all it needs is preferred. */
  readonly request?: Pick<BuildRequest, 'context' | 'network' | 'secrets' | 'reproducible'> | undefined;
}

export interface ChosenBuilder {
  readonly driver: BuilderDriver;
  /** One sentence for people. */
  readonly why: string;
}

/** Best first: BuildKit runs independent stages at once and skips unused ones; the classic builder lacks mounts. */
const PREFERENCE: readonly BuilderName[] = ['docker-buildkit', 'buildah', 'podman', 'docker'];

/**
 * The engine to build with.
 * @throws BUILD_ENGINE_MISSING when none of those wanted can be used, with why and what to do; DOCKERFILE_INVALID.
 */
export function chooseBuilder(detected: readonly DetectedBuilder[], wants: BuilderWants = {}): ChosenBuilder {
  const engine = wants.engine ?? 'auto';
  const isWanted = (name: BuilderName) =>
    engine === 'auto' || name === engine || (engine === 'docker' && name === 'docker-buildkit');
  const wanted = detected.filter(({ name }) => isWanted(name));
  const usable = wanted.flatMap((builder) => (builder.usable ? [builder.driver] : []));
  usable.sort((a, b) => PREFERENCE.indexOf(a.name) - PREFERENCE.indexOf(b.name));
  const dockerfile = wants.request?.context.dockerfile;
  const used = dockerfile && readDockerfileFeatures(dockerfile.bytes, { fileName: dockerfile.displayPath });
  const network = wants.request?.network ?? 'default';
  const { secrets = [], reproducible = false } = wants.request ?? {};
  const suits = ({ capabilities }: BuilderDriver) =>
    (used === undefined || missingFeatures(capabilities, used).length === 0) &&
    capabilities.networks.includes(network) &&
    (secrets.length === 0 || capabilities.secrets) &&
    (!reproducible || capabilities.reproducible);
  const driver = usable.find(suits) ?? usable[0];
  if (driver === undefined) throw noEngine(wanted, engine === 'auto' ? undefined : engine);
  return { driver, why: whyThis(driver, usable, engine) };
}

function whyThis(driver: BuilderDriver, usable: readonly BuilderDriver[], engine: string): string {
  const before = namesOf(usable.slice(0, usable.indexOf(driver)), driver);
  if (before !== '') return `${driver.engine} has what the build needs; ${before} has not.`;
  if (engine !== 'auto') return `${driver.engine} was asked for.`;
  const others = namesOf(usable, driver);
  return others === ''
    ? `${driver.engine} is the only engine that answers.`
    : `${driver.engine} is preferred to ${others}.`;
}

function namesOf(drivers: readonly BuilderDriver[], without: BuilderDriver): string {
  return [...new Set(drivers.map(({ engine }) => engine))].filter((engine) => engine !== without.engine).join(', ');
}
