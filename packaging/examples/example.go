// db-node from Go, with net/http: set, get, change by compare-and-swap, watch.
//
//	go run packaging/examples/example.go
//
// DB_NODE_URL names the node (http://localhost:9001 if not given), DB_NODE_TOKEN its token.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
)

var base = func() string {
	if url := os.Getenv("DB_NODE_URL"); url != "" {
		return url
	}
	return "http://localhost:9001"
}()

// answer is what a request was answered with.
type answer struct {
	status int
	etag   string
	body   []byte
}

// ask sends a request. A status of 400 or more that is not in expected is an error.
func ask(method, path, body string, headers map[string]string, expected ...int) (answer, error) {
	request, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	if token := os.Getenv("DB_NODE_TOKEN"); token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return answer{}, err
	}
	got := answer{response.StatusCode, response.Header.Get("ETag"), content}
	if got.status < 400 {
		return got, nil
	}
	for _, status := range expected {
		if got.status == status {
			return got, nil
		}
	}
	return got, fmt.Errorf("%s %s: %d %s", method, path, got.status, content)
}

func pathOf(key string) string { return "/kv/" + url.PathEscape(key) }

// add adds to a number that others may change meanwhile, and returns the sum.
func add(key string, amount int) (int, error) {
	for {
		now, err := ask("GET", pathOf(key), "", nil, 404)
		if err != nil {
			return 0, err
		}
		value, condition := 0, map[string]string{"If-None-Match": "*"}
		if now.status == 200 {
			if value, err = strconv.Atoi(string(now.body)); err != nil {
				return 0, err
			}
			condition = map[string]string{"If-Match": now.etag}
		}
		written, err := ask("PUT", pathOf(key), strconv.Itoa(value+amount), condition, 412)
		if err != nil {
			return 0, err
		}
		if written.status != 412 { // 412: changed since it was read, so read it again
			return value + amount, nil
		}
	}
}

type event struct{ Op, Key, Value string }

// watch calls see with the changes under a prefix, until see says that it has seen enough. It goes on
// where it was after each answer.
func watch(prefix, since string, see func(event) bool) error {
	for {
		query := url.Values{"prefix": {prefix}, "timeout": {"20"}, "since": {since}}
		got, err := ask("GET", "/watch?"+query.Encode(), "", nil)
		if err != nil {
			return err
		}
		var changes struct {
			Events   []event
			Position string
		}
		if err := json.Unmarshal(got.body, &changes); err != nil {
			return err
		}
		for _, change := range changes.Events {
			if see(change) {
				return nil
			}
		}
		since = changes.Position
	}
}

func run() error {
	if _, err := ask("PUT", pathOf("go/greeting"), "hello", nil); err != nil {
		return err
	}
	greeting, err := ask("GET", pathOf("go/greeting"), "", nil)
	if err != nil {
		return err
	}
	fmt.Println("greeting:", string(greeting.body))

	start, err := ask("GET", "/watch?timeout=0", "", nil)
	if err != nil {
		return err
	}
	var position struct{ Position string }
	if err := json.Unmarshal(start.body, &position); err != nil {
		return err
	}

	if _, err := ask("DELETE", "/delete?key=go/counter", "", nil); err != nil {
		return err
	}
	var group sync.WaitGroup
	for i := 0; i < 8; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			if _, err := add("go/counter", 1); err != nil {
				log.Fatal(err)
			}
		}()
	}
	group.Wait()
	counter, err := ask("GET", pathOf("go/counter"), "", nil)
	if err != nil {
		return err
	}
	fmt.Println("counter after 8 goroutines:", string(counter.body))

	return watch("go/counter", position.Position, func(change event) bool {
		fmt.Println("watched:", change.Op, change.Key, change.Value)
		return change.Value == "8"
	})
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
