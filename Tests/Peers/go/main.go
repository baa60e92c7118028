// A relay with Go's standard library, over FastCGI or HTTP.
//
//	relay fcgi|http SOCKET UPSTREAM_URL
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/fcgi"
	"os"
)

type chunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
	} `json:"choices"`
}

type token struct {
	T string `json:"t"`
}

// bytes.CutPrefix is newer than Debian's Go.
func cutPrefix(line []byte, prefix string) ([]byte, bool) {
	if !bytes.HasPrefix(line, []byte(prefix)) {
		return nil, false
	}
	return line[len(prefix):], true
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}

func relay(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "bad request", 400)
		return
	}
	request, _ := http.NewRequestWithContext(r.Context(), "POST", os.Args[3]+"/chat/completions", bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		http.Error(w, "upstream", 502)
		return
	}
	defer response.Body.Close()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	flusher := w.(http.Flusher)
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		data, found := cutPrefix(lines.Bytes(), "data: ")
		if !found {
			continue
		}
		if string(data) == "[DONE]" {
			io.WriteString(w, "event: done\ndata: {}\n\n")
			flusher.Flush()
			io.Copy(io.Discard, response.Body)
			return
		}
		var part chunk
		if json.Unmarshal(data, &part) != nil || len(part.Choices) == 0 || part.Choices[0].Delta.Content == "" {
			continue
		}
		text, _ := json.Marshal(token{part.Choices[0].Delta.Content})
		io.WriteString(w, "event: token\ndata: ")
		w.Write(text)
		if _, err := io.WriteString(w, "\n\n"); err != nil {
			return
		}
		flusher.Flush()
	}
}

func main() {
	listener, err := net.Listen("unix", os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	os.Chmod(os.Args[2], 0777)
	if os.Args[1] == "fcgi" {
		log.Fatal(fcgi.Serve(listener, http.HandlerFunc(relay)))
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(relay)))
}
