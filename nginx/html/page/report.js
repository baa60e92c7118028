// Reports: written by the model as JSON, shown as a document, saved on request.

import { request } from "../sluice.js";
import { Retry, Spoken, useErrorReport } from "./conversation.js";
import { explain } from "./errors.js";
import { Request } from "./form.js";
import { address, open } from "./fragment.js";
import { Markdown, copy } from "./markdown.js";
import { Boundary, Page, h, isRunning, useCallback, useContext, useEffect, useReport, useRef, useState } from "./react.js";
import { Side } from "./side.js";

/** @param {{ id: string | undefined }} properties the saved report that is shown; a form for a new one if it is undefined */
export function Reports({ id }) {
  const { reports, refresh } = useReports();
  return h("div", { className: "with-side" },
    h(Side, {
      title: "Saved reports", action: "New report", onAction: () => open("reports"), current: id,
      empty: "Reports that you save are listed here.",
      items: reports.map(({ id, title, at }) => ({ id, href: address("reports", id), label: title ?? "Untitled", at })),
    }),
    h("div", { className: "pane", hidden: id !== undefined }, h(NewReport, { onSave: refresh })),
    id !== undefined && h("div", { className: "pane" }, h(SavedReport, { key: id, id })));
}

/** The user's saved reports, the newest first. */
function useReports() {
  const { token, report } = useContext(Page);
  const [reports, setReports] = useState([]);
  const refresh = useCallback(async () => {
    try {
      setReports((await request("/api/reports", { token })).reports);
    } catch (error) {
      report(error);
    }
  }, [token, report]);
  useEffect(() => { refresh(); }, [refresh]);
  return { reports, refresh };
}

function NewReport({ onSave }) {
  const { token, transport } = useContext(Page);
  const { text, report, reportId, status, error, start, stop, save, retry } = useReport({ token, transport });
  const field = useRef(), link = useRef();
  useErrorReport(error);
  useEffect(() => {
    if (!reportId) return;
    onSave();
    // The button that had the focus has become a link.
    link.current?.focus();
  }, [reportId, onSave]);
  const repeat = () => {
    field.current.focus();
    retry();
  };
  return h("div", { className: "scroll document" },
    h(Request, {
      label: "What should be assessed?", action: "Write report", rows: 4, isRunning: isRunning(status), field,
      onStart: start, onStop: stop,
    }),
    isRunning(status) && h("section", { className: "draft", "aria-label": "Report in progress" },
      h("p", { className: "muted" }, "The report is being written …"), h("pre", { className: "raw", tabIndex: 0 }, text)),
    status === "cancelled" && h("p", { className: "note" }, "Stopped. Nothing was stored."),
    status === "failed" && h("div", { className: "failure" },
      h("p", { className: "note" }, `No report. ${explain(error)}`),
      text && h("pre", { className: "raw", tabIndex: 0 }, text),
      h(Retry, { error, onClick: repeat })),
    report && h(Report, { report },
      reportId
        ? h("a", { ref: link, href: address("reports", reportId) }, "Saved")
        : h("button", { type: "button", className: "primary", onClick: save }, "Save"),
      error && h("p", { className: "note" }, `The report is not saved. ${explain(error)}`)),
    h(Spoken, { message: { id: "report", role: "assistant", status, content: report ? "The report is complete." : "" } }));
}

function SavedReport({ id }) {
  const { token, report } = useContext(Page);
  const [saved, setSaved] = useState(undefined);
  const [failure, setFailure] = useState(undefined);
  useEffect(() => {
    const abort = new AbortController();
    request(`/api/reports/${encodeURIComponent(id)}`, { token, signal: abort.signal }).then(setSaved, (error) => {
      if (abort.signal.aborted) return;
      setFailure(error);
      report(error);
    });
    return () => abort.abort();
  }, [id, token, report]);
  return h("div", { className: "scroll document" },
    saved && h(Report, { report: saved.report }),
    failure && h("p", { className: "note" }, explain(failure)));
}

/** A report as a document, with its JSON beside it. */
function Report({ report, children: actions }) {
  const json = JSON.stringify(report, null, 2);
  const { title, ...members } = report;
  return h("div", { className: "report" },
    h("article", null,
      h("h2", null, typeof title === "string" ? title : "Report"),
      h(Boundary, null, Object.entries(members).map(([name, value]) => h(Member, { key: name, name, value }))),
      h("div", { className: "buttons" }, actions)),
    h("details", { className: "json", open: matchMedia("(min-width: 80rem)").matches },
      h("summary", null, "JSON"),
      h("button", { type: "button", className: "quiet copy", onClick: (event) => copy(json, event.currentTarget) }, "Copy"),
      h("pre", { tabIndex: 0 }, json)));
}

/** Members whose names need no heading. */
const plain = new Set(["summary", "sections", "text"]);

function Member({ name, value }) {
  const heading = name.replace(/[_-]+/g, " ").replace(/^./, (letter) => letter.toUpperCase());
  return h("section", null, !plain.has(name) && h("h3", null, heading), h(Value, { value }));
}

function Value({ value }) {
  if (typeof value === "string") return h(Markdown, { text: value });
  if (value === null || typeof value !== "object") return h("p", null, String(value));
  if (!Array.isArray(value)) return Object.entries(value).map(([name, value]) => h(Member, { key: name, name, value }));
  if (value.every((element) => element === null || typeof element !== "object")) {
    return h("ul", null, value.map((element, index) => h("li", { key: index }, String(element))));
  }
  return value.map((element, index) => h(Section, { key: index, section: element }));
}

function Section({ section }) {
  if (section === null || typeof section !== "object" || Array.isArray(section)) return h(Value, { value: section });
  const { heading, title = heading, ...members } = section;
  return h("section", null,
    typeof title === "string" && h("h3", null, title),
    Object.entries(members).map(([name, value]) => h(Member, { key: name, name, value })));
}
