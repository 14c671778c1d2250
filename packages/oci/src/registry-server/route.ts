import { isRepositoryName } from '../reference.ts';
import { RegistryProblem } from './answers.ts';

export type RegistryAction = 'pull' | 'push' | 'delete';

type Kind = 'manifests' | 'uploads' | 'blobs' | 'tags' | 'referrers';

/** Repositories may have parts named like the API's own, so the path is read from its end. */
export function parseRoute(path: string): { kind: Kind; repository: string; rest: string } | undefined {
  const patterns: readonly (readonly [Kind, RegExp])[] = [
    ['uploads', /^\/v2\/(.+)\/blobs\/uploads\/?([^/]*)$/],
    ['blobs', /^\/v2\/(.+)\/blobs\/([^/]+)$/],
    ['manifests', /^\/v2\/(.+)\/manifests\/([^/]+)$/],
    ['tags', /^\/v2\/(.+)\/tags\/(list)$/],
    ['referrers', /^\/v2\/(.+)\/referrers\/([^/]+)$/],
  ];
  for (const [kind, pattern] of patterns) {
    const [, repository, rest] = pattern.exec(path) ?? [];
    if (repository === undefined || rest === undefined) continue;
    if (!isRepositoryName(repository))
      throw new RegistryProblem('NAME_INVALID', 'The name of the repository is not valid.');
    return { kind, repository, rest: decode(rest) };
  }
  return undefined;
}

/** Some clients write the colon of a digest as %3A. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function actionOf(method: string, kind: Kind): RegistryAction {
  if (kind === 'uploads') return 'push';
  if (method === 'GET' || method === 'HEAD') return 'pull';
  return method === 'DELETE' ? 'delete' : 'push';
}
