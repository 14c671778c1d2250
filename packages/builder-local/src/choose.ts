import { missingFeatures } from './check-request.ts';
import { noEngine, type DetectedBuilder } from './detect.ts';
import { readNeeds } from './dockerfile.ts';
import type { BuilderDriver, BuilderName, BuildRequest } from './driver.ts';

export interface BuilderWants {
  /** The only engine to use; `docker` also means BuildKit in docker. Default `auto`. */
  readonly engine?: 'auto' | BuilderName | undefined;
  /** What will be built: an engine that has all it needs is preferred. */
  readonly request?: Pick<BuildRequest, 'context' | 'network'> | undefined;
}

export interface ChosenBuilder {
  readonly driver: BuilderDriver;
  /** One sentence for people. */
  readonly why: string;
}

/** Best first: BuildKit runs independent stages at once and skips unused ones; the classic builder lacks mounts. */
const PREFERENCE: readonly BuilderName[] = ['docker-buildkit', 'buildah', 'docker'];

/**
 * The engine to build with.
 * @throws BUILD_ENGINE_MISSING when none of those wanted can be used, with why and what to do.
 */
export function chooseBuilder(detected: readonly DetectedBuilder[], wants: BuilderWants = {}): ChosenBuilder {
  const engine = wants.engine ?? 'auto';
  const isWanted = (name: BuilderName) =>
    engine === 'auto' || name === engine || (engine === 'docker' && name === 'docker-buildkit');
  const wanted = detected.filter(({ name }) => isWanted(name));
  const usable = wanted.flatMap((builder) => (builder.usable ? [builder.driver] : []));
  usable.sort((a, b) => PREFERENCE.indexOf(a.name) - PREFERENCE.indexOf(b.name));
  const { request } = wants;
  const lacks = (driver: BuilderDriver) =>
    request !== undefined &&
    (missingFeatures(driver.capabilities, readNeeds(request.context.dockerfile)).length > 0 ||
      !driver.capabilities.networks.includes(request.network ?? 'default'));
  const driver = usable.find((candidate) => !lacks(candidate)) ?? usable[0];
  if (driver === undefined) throw noEngine(wanted);
  const passedOver = usable.slice(0, usable.indexOf(driver)).map((other) => other.engine);
  const others = usable.filter((other) => other !== driver && !passedOver.includes(other.engine));
  let why = `${driver.engine} was asked for.`;
  if (passedOver.length > 0)
    why = `${driver.engine} has what the Dockerfile needs and ${passedOver.join(', ')} has not.`;
  else if (engine === 'auto') {
    const rest =
      others.length === 0
        ? 'the only engine that answers'
        : `preferred to ${others.map((other) => other.engine).join(', ')}`;
    why = `${driver.engine} is ${rest}.`;
  }
  return { driver, why };
}
