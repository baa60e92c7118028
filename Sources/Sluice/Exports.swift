// What handlers, dialects and generators are given and give back is declared in the modules below, whose public part is
// that and nothing else: a program that imports Sluice needs no other import.
@_exported import FastCGI
@_exported import JSON
@_exported import Upstream
