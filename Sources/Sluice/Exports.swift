// Re-exported, so that a program needs to import only Sluice: these modules declare the types that handlers, dialects
// and generators receive and return, and nothing else in them is public.
@_exported import FastCGI
@_exported import JSON
@_exported import Upstream
