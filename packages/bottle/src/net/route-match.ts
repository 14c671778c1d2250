import type { EgressRequest, Route, RouteMatch } from './policy.ts';
import { hasPathPrefix, normalPath } from './path.ts';
import { refused, type Refusal } from './refusal.ts';

type Inner = NonNullable<EgressRequest['request']>;

/** Headers by which some servers take one method for another. */
const METHOD_OVERRIDES: ReadonlySet<string> = new Set(['x-http-method', 'x-http-method-override', 'x-method-override']);

/** Whether one of the routes lets this request through: that route, or why none does. */
export function matchRoutes(routes: readonly Route[], request: Inner): Route | Refusal {
  let path: string | undefined;
  if (routes.some((route) => route.matches.some((match) => match.path !== undefined))) {
    const normal = normalPath(request.target);
    // A path in two readings could pass by a match that names no path; with such a route beside, that is what it says.
    if (normal.type === 'path') path = normal.text;
    else if (
      routes.every((route) => route.matches.length > 0 && route.matches.every((match) => match.path !== undefined))
    ) {
      return normal;
    }
  }
  for (const route of routes) {
    if (route.matches.length === 0 || route.matches.some((match) => matches(match, request, path))) return route;
  }
  return refused('no-match', 'No route to this host allows this method, path or header.');
}

function matches(match: RouteMatch, request: Inner, path: string | undefined): boolean {
  if (match.methods !== undefined) {
    const methods = [request.method];
    for (const [name, value] of request.headers)
      if (METHOD_OVERRIDES.has(name)) methods.push(value.trim().toUpperCase());
    if (!methods.every((method) => match.methods?.includes(method))) return false;
  }
  for (const { name, value } of match.headers ?? []) {
    const found = request.headers.filter(([other]) => other === name.toLowerCase());
    // Which of two would count is for the server to say, so neither does.
    if (found.length !== 1 || found[0]?.[1] !== value) return false;
  }
  if (match.path === undefined) return true;
  const wanted = normalPath(match.path.value);
  if (path === undefined || wanted.type === 'refused') return false;
  return match.path.type === 'exact' ? path === wanted.text : hasPathPrefix(path, wanted.text);
}
