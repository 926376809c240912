import { type DescField, type DescMessage, type DescMethod, type DescService, getOption, hasOption } from "@bufbuild/protobuf";
import { Refusal } from "../domain/refusal.ts";
import { http } from "../gen/google/api/annotations_pb.js";
import type { HttpRule } from "../gen/google/api/http_pb.js";

/** A REST path of an RPC, as its google.api.http annotation says. */
export type RestRoute = {
  readonly method: DescMethod;
  /** In capitals. */
  readonly httpMethod: string;
  /** Such as "/orders/tracking/{order_id}". */
  readonly template: string;
  readonly segments: readonly PathSegment[];
  /** Where the body goes: the whole request, one field of it, or nowhere. Without "all", query parameters give the rest. */
  readonly body: "all" | "none" | DescField;
  /** The field of the answer that is shown instead of the whole. */
  readonly responseBody: DescField | undefined;
};

type PathSegment = { readonly literal: string } | { readonly field: DescField };

/** The REST paths of all services. */
export type RestRoutes = {
  readonly routes: readonly RestRoute[];
  /**
   * The route of a request, with what its path says; undefined if no method has the path. Throws a Refusal
   * METHOD_NOT_ALLOWED if only others have it, and MALFORMED_REQUEST for percent-encoding that does not decode.
   */
  match(httpMethod: string, path: string): { readonly route: RestRoute; readonly variables: ReadonlyMap<DescField, string> } | undefined;
  /** The HTTP methods of a path, for the header Allow. */
  methodsOf(path: string): readonly string[];
};

/** Reads the google.api.http annotations. Throws on one that this transcoder does not understand, and on two for one path. */
export function createRestRoutes(services: readonly DescService[]): RestRoutes {
  const routes = services.flatMap(({ methods }) =>
    methods.flatMap((method) => (hasOption(method, http) ? routesOf(method, getOption(method, http)) : [])),
  );
  assertDistinct(routes);

  function matching(path: string): { route: RestRoute; variables: ReadonlyMap<DescField, string> }[] {
    const segments = path.slice(1).split("/").map(decodeSegment);
    return routes.flatMap((route) => {
      const variables = matchSegments(route.segments, segments);
      return variables ? [{ route, variables }] : [];
    });
  }

  return {
    routes,
    match(httpMethod, path) {
      const candidates = matching(path);
      const found = candidates.find(({ route }) => route.httpMethod === httpMethod);
      if (found || candidates.length === 0) return found;
      const allow = methodsFor(candidates);
      throw new Refusal("METHOD_NOT_ALLOWED", `${httpMethod} is not for this path; use ${allow.join(" or ")}`, { allow: allow.join(", ") });
    },
    methodsOf: (path) => methodsFor(matching(path)),
  };
}

function methodsFor(candidates: readonly { readonly route: RestRoute }[]): string[] {
  return [...new Set(candidates.flatMap(({ route: { httpMethod } }) => (httpMethod === "GET" ? ["GET", "HEAD"] : [httpMethod])))];
}

function matchSegments(template: readonly PathSegment[], segments: readonly string[]): ReadonlyMap<DescField, string> | undefined {
  if (template.length !== segments.length) return undefined;
  const variables = new Map<DescField, string>();
  for (const [index, part] of template.entries()) {
    const segment = segments[index] ?? "";
    if ("literal" in part ? part.literal !== segment : segment === "") return undefined;
    if ("field" in part) variables.set(part.field, segment);
  }
  return variables;
}

function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new Refusal("MALFORMED_REQUEST", "the path has percent-encoding that does not decode to UTF-8");
  }
}

function routesOf(method: DescMethod, rule: HttpRule): RestRoute[] {
  if (method.methodKind !== "unary") {
    if (method.methodKind !== "server_streaming" || rule.pattern.case !== "get" || rule.responseBody !== "")
      throw unsupported(method, "of those that stream, only answers to GET are served, whole");
  }
  return [routeOf(method, rule), ...rule.additionalBindings.map((binding) => routeOf(method, binding))];
}

function routeOf(method: DescMethod, { pattern, body, responseBody }: HttpRule): RestRoute {
  if (pattern.case === undefined || pattern.case === "custom")
    throw unsupported(method, "its pattern is none of get, put, post, delete and patch");
  return {
    method,
    httpMethod: pattern.case.toUpperCase(),
    template: pattern.value,
    segments: pattern.value
      .slice(1)
      .split("/")
      .map((part) => segmentOf(method, part)),
    body: body === "*" ? "all" : body === "" ? "none" : fieldOf(method, method.input, body),
    responseBody: responseBody === "" ? undefined : fieldOf(method, method.output, responseBody),
  };
}

function segmentOf(method: DescMethod, part: string): PathSegment {
  const name = /^\{([a-z][a-z0-9_]*)\}$/.exec(part)?.[1];
  if (name !== undefined) return { field: fieldOf(method, method.input, name) };
  if (/[{}*:]/.test(part)) throw unsupported(method, `its path has the segment ${part}`);
  return { literal: part };
}

function fieldOf(method: DescMethod, desc: DescMessage, name: string): DescField {
  const field = desc.fields.find((candidate) => candidate.name === name);
  if (!field) throw unsupported(method, `${desc.typeName} has no field ${name}`);
  return field;
}

function unsupported(method: DescMethod, problem: string): Error {
  return new Error(`the google.api.http annotation of ${method.parent.typeName}/${method.name} cannot be served: ${problem}`);
}

function assertDistinct(routes: readonly RestRoute[]): void {
  const seen = new Set<string>();
  for (const { httpMethod, template, segments } of routes) {
    const shape = `${httpMethod} ${segments.map((part) => ("literal" in part ? part.literal : "{}")).join("/")}`;
    if (seen.has(shape)) throw new Error(`${httpMethod} ${template} is the path of two RPCs`);
    seen.add(shape);
  }
}
